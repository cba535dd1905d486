// Whose memory and stream a call was given.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/resources.h"

#include <cuda_runtime_api.h>

#include <string>

#include "cuda/check.h"

namespace minference::cuda {
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
#if CUDART_VERSION >= 12080  // Older runtimes cannot tell.
  // Default streams are those of the device that is current.
  if (stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread) return;
  int stream_device = -1;
  const cudaError_t error = cudaStreamGetDevice(stream, &stream_device);
  if (error == cudaErrorCallRequiresNewerDriver || error == cudaErrorNotSupported) {
    cudaGetLastError();  // Nor can older drivers.
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
  cudaGetLastError();  // What the caller's own calls left would be taken for a failed launch.
  MINF_CUDA(cudaGetDevice(&previous_));
  if (previous_ == device_index) return;
  MINF_CUDA(cudaSetDevice(device_index));
  changed_ = true;
}

CurrentDevice::~CurrentDevice() {
  if (changed_) cudaSetDevice(previous_);
}

}  // namespace minference::cuda
