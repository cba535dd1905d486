// What the CUDA runtime says of the machine, and of the memory and the stream that a call was
// given.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/machine.h"

#include <cuda_runtime_api.h>

#include <string>
#include <utility>

#include "core/check.h"
#include "cuda/check.h"

namespace minference::cuda {
namespace {

/// "12.4"; versions are 1000 * major + 10 * minor.
std::string version_text(int version) {
  return detail::concat(version / 1000, ".", version % 1000 / 10);
}

Machine without_gpu(minf_status status, std::string reason) {
  return {.status = status, .reason = std::move(reason), .gpus = {}};
}

Machine probe() {
  // A failing call leaves its result unchanged. cudaDriverGetVersion is asked first because it is
  // cheap: without a driver it succeeds and returns 0, where every other call fails.
  int driver_version = 0;
  if (cudaDriverGetVersion(&driver_version) != cudaSuccess || driver_version == 0) {
    cudaGetLastError();
    return without_gpu(MINF_ERROR_NO_DEVICE, "no CUDA driver");
  }
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  std::vector<Architecture> gpus;
  for (int device = 0; error == cudaSuccess && device < count; ++device) {
    int major = 0, minor = 0;
    error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (error == cudaSuccess) {
      error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    }
    gpus.push_back(10 * major + minor);
  }
  if (error == cudaSuccess && count > 0) {
    return {.status = MINF_OK, .reason = "", .gpus = std::move(gpus)};
  }

  cudaGetLastError();  // Clear it, so that the caller's next check does not find it.
  const std::string driver = "driver supports CUDA " + version_text(driver_version);
  switch (error) {
    case cudaErrorInsufficientDriver:
      // Within a major version any driver works.
      return without_gpu(MINF_ERROR_DRIVER_TOO_OLD, detail::concat(driver, ", this build needs ",
                                                                   CUDART_VERSION / 1000, ".0"));
    case cudaSuccess:
    case cudaErrorNoDevice:
      return without_gpu(MINF_ERROR_NO_DEVICE, detail::concat("no GPU (", driver, ")"));
    default:
      return without_gpu(MINF_ERROR_CUDA,
                         detail::concat("cannot list GPUs: ", cudaGetErrorName(error), ": ",
                                        cudaGetErrorString(error), " (", driver, ")"));
  }
}

}  // namespace

const Machine& machine() {
  static const Machine kMachine = probe();
  return kMachine;
}

int num_multiprocessors(int device_index) {
  int count = 0;
  MINF_CUDA(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device_index));
  return count;
}

Architecture architecture_of(const Machine& machine, int device_index) {
  const bool exists = device_index >= 0 && device_index < static_cast<int>(machine.gpus.size());
  return exists ? machine.gpus[static_cast<std::size_t>(device_index)] : 0;
}

std::string describe_gpu(const Machine& machine, int device_index) {
  return detail::concat("GPU ", device_index, " is sm_",
                        machine.gpus[static_cast<std::size_t>(device_index)]);
}

std::string describe_gpus(const Machine& machine) {
  std::string text;
  for (int device = 0; device < static_cast<int>(machine.gpus.size()); ++device) {
    text += (device == 0 ? "" : ", ") + describe_gpu(machine, device);
  }
  return text;
}

// ---- Resources of a call ------------------------------------------------------------------------

namespace {

std::string place_text(const cudaPointerAttributes& attributes) {
  switch (attributes.type) {
    case cudaMemoryTypeDevice:
      return detail::concat("memory of cuda:", attributes.device);
    case cudaMemoryTypeHost:
      return "host memory that the GPU cannot use at this address";
    default:
      return "host memory";
  }
}

void check_memory(const NamedMemory& memory, int device_index) {
  cudaPointerAttributes attributes{};
  MINF_CUDA(cudaPointerGetAttributes(&attributes, memory.data));
  const bool usable = attributes.type == cudaMemoryTypeDevice
                          ? attributes.device == device_index
                          : attributes.devicePointer == memory.data;
  if (usable) return;
  detail::throw_error(MINF_ERROR_WRONG_DEVICE,
                      detail::concat(memory.name, ": expected memory of cuda:", device_index,
                                     ", got ", place_text(attributes), " at ", memory.data));
}

void check_stream([[maybe_unused]] cudaStream_t stream, [[maybe_unused]] int device_index) {
#if CUDART_VERSION >= 12080  // Older runtimes cannot tell a stream's device.
  // Default streams belong to the current device.
  if (stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread) return;
  int stream_device = -1;
  const cudaError_t error = cudaStreamGetDevice(stream, &stream_device);
  if (error == cudaErrorCallRequiresNewerDriver || error == cudaErrorNotSupported) {
    cudaGetLastError();  // Older drivers cannot tell either.
    return;
  }
  if (error == cudaErrorInvalidResourceHandle || error == cudaErrorContextIsDestroyed) {
    cudaGetLastError();
    detail::throw_error(MINF_ERROR_WRONG_STREAM,
                        detail::concat("stream: expected a stream of cuda:", device_index,
                                       ", got one that does not exist: ", cudaGetErrorName(error)));
  }
  detail::check_cuda(error, "cudaStreamGetDevice");
  if (stream_device == device_index) return;
  detail::throw_error(MINF_ERROR_WRONG_STREAM,
                      detail::concat("stream: expected a stream of cuda:", device_index,
                                     ", got one of cuda:", stream_device));
#endif
}

}  // namespace

void check_resources(std::span<const NamedMemory> memory, const Executor& executor) {
  for (const NamedMemory& one : memory) check_memory(one, executor.device_index);
  check_stream(static_cast<cudaStream_t>(executor.stream), executor.device_index);
}

CurrentDevice::CurrentDevice(int device_index) {
  cudaGetLastError();  // An error left by the caller's own calls would look like a failed launch.
  MINF_CUDA(cudaGetDevice(&previous_));
  if (previous_ == device_index) return;
  MINF_CUDA(cudaSetDevice(device_index));
  changed_ = true;
}

CurrentDevice::~CurrentDevice() {
  if (changed_) cudaSetDevice(previous_);
}

}  // namespace minference::cuda
