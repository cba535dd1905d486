// What the CUDA runtime says of the machine.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/machine.h"

#include <cuda_runtime_api.h>

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
  // Failing calls leave their results as they are. cudaDriverGetVersion is the cheap one: without a
  // driver it succeeds, with 0, where every other call fails.
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

  cudaGetLastError();  // Not to be found by the caller's next check.
  const std::string driver = "driver supports CUDA " + version_text(driver_version);
  switch (error) {
    case cudaErrorInsufficientDriver:
      // Within a major version every driver will do.
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

}  // namespace minference::cuda
