// The CUDA runtime's host functions, on a machine that simt::machine() describes.
// SPDX-License-Identifier: Apache-2.0
#include "runtime.h"

#include <simt/simt.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <utility>

#include "device_heap.h"
#include "graphs.h"

namespace simt {

Machine& machine() {
  static Machine machine;
  return machine;
}

namespace engine {
namespace {

thread_local cudaError_t last_error = cudaSuccess;

/// Checks that there is a new enough driver with a device.
cudaError_t machine_error() {
  const Machine& m = machine();
  constexpr int kPerMajor = 1000;
  if (m.driver_version / kPerMajor < m.runtime_version / kPerMajor) {
    return cudaErrorInsufficientDriver;
  }
  return m.devices.empty() ? cudaErrorNoDevice : cudaSuccess;
}

bool device_exists(int device) {
  return device >= 0 && static_cast<std::size_t>(device) < machine().devices.size();
}

/// For host reads and writes: device memory in the range must be allocated.
bool touches_only_allocated(const void* pointer, std::size_t bytes) {
  const DeviceHeap& heap = DeviceHeap::instance();
  return !heap.contains(pointer) || heap.is_allocated(pointer, bytes);
}

cudaError_t copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) {
    return cudaErrorInvalidMemcpyDirection;
  }
  if (bytes == 0) return cudaSuccess;
  DeviceHeap& heap = DeviceHeap::instance();
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if ((to_device && !heap.contains(to)) || (from_device && !heap.contains(from)) ||
      !touches_only_allocated(to, bytes) || !touches_only_allocated(from, bytes)) {
    return cudaErrorInvalidValue;
  }
  std::memmove(to, from, bytes);
  if (heap.contains(to)) heap.set_initialized(to, bytes);
  return cudaSuccess;
}

cudaError_t fill(void* to, int value, std::size_t bytes) {
  DeviceHeap& heap = DeviceHeap::instance();
  if (bytes == 0) return cudaSuccess;
  if (!heap.is_allocated(to, bytes)) return cudaErrorInvalidValue;
  std::memset(to, value, bytes);
  heap.set_initialized(to, bytes);
  return cudaSuccess;
}

constexpr int kMaxBlockThreads = 1024;
constexpr int kDefaultSharedBytes = 48 * 1024;
constexpr int kReservedSharedBytes = 1024;  // In each block, since 8.0.

int attribute_value(cudaDeviceAttr attribute, const Device& device) {
  const int capability = device.major * 10 + device.minor;
  const bool small = capability == 86 || capability == 89 || capability >= 120;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
      return kMaxBlockThreads;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return kDefaultSharedBytes;
    case cudaDevAttrWarpSize:
      return 32;
    case cudaDevAttrClockRate:
      return 1'000'000;  // kHz
    case cudaDevAttrMultiProcessorCount:
      return device.num_multiprocessors;
    case cudaDevAttrL2CacheSize:
      return 50 << 20;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return small ? 1536 : 2048;
    case cudaDevAttrComputeCapabilityMajor:
      return device.major;
    case cudaDevAttrComputeCapabilityMinor:
      return device.minor;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      if (device.shared_bytes_per_multiprocessor > 0) return device.shared_bytes_per_multiprocessor;
      return (small ? 100 : capability == 80 ? 164 : 228) * 1024;
    case cudaDevAttrMaxRegistersPerMultiprocessor:
      return 65536;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return (small ? 99 : capability == 80 ? 163 : 227) * 1024;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      return capability == 86 ? 16 : small ? 24 : 32;
    case cudaDevAttrReservedSharedMemoryPerBlock:
      return kReservedSharedBytes;
  }
  return -1;
}

/// The dynamic shared memory that each kernel was allowed, by device and kernel.
class AllowedSharedBytes {
 public:
  static AllowedSharedBytes& instance() {
    static AllowedSharedBytes allowed;
    return allowed;
  }

  void set(const void* function, int bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    bytes_[{machine().current_device, function}] = bytes;
  }

  int of(const void* function) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = bytes_.find({machine().current_device, function});
    return found == bytes_.end() ? kDefaultSharedBytes : found->second;
  }

 private:
  std::mutex mutex_;
  std::map<std::pair<int, const void*>, int> bytes_;
};

const Device& current_device() {
  return machine().devices[static_cast<std::size_t>(machine().current_device)];
}

/// How many blocks fit, for blocks that the kernel may have.
int resident_blocks(int block_threads, std::size_t dynamic_shared_bytes) {
  const auto attribute = [](cudaDeviceAttr which) {
    return attribute_value(which, current_device());
  };
  constexpr int kSharedUnit = 128;  // Bytes, since 8.0.
  const int warp = attribute(cudaDevAttrWarpSize);
  const int warps = (block_threads + warp - 1) / warp;
  const int max_warps = attribute(cudaDevAttrMaxThreadsPerMultiProcessor) / warp;
  const int shared =
      (static_cast<int>(dynamic_shared_bytes) + kReservedSharedBytes + kSharedUnit - 1) /
      kSharedUnit * kSharedUnit;
  return std::min({max_warps / warps, attribute(cudaDevAttrMaxBlocksPerMultiprocessor),
                   attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor) / shared});
}

}  // namespace

bool is_default(cudaStream_t stream) {
  return stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread;
}

cudaError_t set_last_error(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

cudaError_t stream_error(cudaStream_t stream) {
  const cudaError_t error = machine_error();
  if (error != cudaSuccess) return error;
  const bool ours = is_default(stream) || stream->device == machine().current_device;
  return ours ? cudaSuccess : cudaErrorInvalidResourceHandle;
}

}  // namespace engine
}  // namespace simt

using simt::machine;
using simt::engine::DeviceHeap;
using simt::engine::machine_error;
using simt::engine::set_last_error;

cudaError_t cudaGetDeviceCount(int* count) {
  const cudaError_t error = machine_error();
  if (error != cudaSuccess) return set_last_error(error);  // *count stays as it was.
  *count = static_cast<int>(machine().devices.size());
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = machine().driver_version;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = machine().runtime_version;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  const cudaError_t error = machine_error();
  if (error == cudaSuccess) *device = machine().current_device;
  return set_last_error(error);
}

cudaError_t cudaSetDevice(int device) {
  const cudaError_t error = machine_error();
  if (error != cudaSuccess) return set_last_error(error);
  if (!simt::engine::device_exists(device)) return set_last_error(cudaErrorInvalidDevice);
  machine().current_device = device;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  const cudaError_t error = machine_error();
  if (error != cudaSuccess) return set_last_error(error);
  if (!simt::engine::device_exists(device)) return set_last_error(cudaErrorInvalidDevice);
  const int result =
      simt::engine::attribute_value(attribute, machine().devices[static_cast<std::size_t>(device)]);
  if (result < 0) return set_last_error(cudaErrorInvalidValue);
  *value = result;
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() { return set_last_error(machine_error()); }

cudaError_t cudaGetLastError() {
  const cudaError_t error = simt::engine::last_error;
  simt::engine::last_error = cudaSuccess;
  return error;
}

cudaError_t cudaPeekAtLastError() { return simt::engine::last_error; }

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  const cudaError_t error = machine_error();
  if (error != cudaSuccess) return set_last_error(error);
  try {
    *pointer = simt::device_malloc(bytes);
  } catch (const std::bad_alloc&) {
    return set_last_error(cudaErrorMemoryAllocation);
  }
  return cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  const cudaError_t error = machine_error();
  if (error != cudaSuccess) return set_last_error(error);
  if (pointer != nullptr && !DeviceHeap::instance().release(pointer)) {
    return set_last_error(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const cudaError_t error = simt::engine::stream_error(stream);
  if (error != cudaSuccess) return set_last_error(error);
  if (CUgraph_st* graph = simt::engine::capture_of(stream)) {
    graph->work.emplace_back([=](cudaStream_t launched_on) {
      return cudaMemcpyAsync(to, from, bytes, kind, launched_on);
    });
    return cudaSuccess;
  }
  return set_last_error(simt::engine::copy(to, from, bytes, kind));
}

cudaError_t cudaMemset(void* to, int value, std::size_t bytes) {
  return cudaMemsetAsync(to, value, bytes, nullptr);
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  const cudaError_t error = simt::engine::stream_error(stream);
  if (error != cudaSuccess) return set_last_error(error);
  if (CUgraph_st* graph = simt::engine::capture_of(stream)) {
    graph->work.emplace_back(
        [=](cudaStream_t launched_on) { return cudaMemsetAsync(to, value, bytes, launched_on); });
    return cudaSuccess;
  }
  return set_last_error(simt::engine::fill(to, value, bytes));
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  const cudaError_t error = machine_error();
  if (error != cudaSuccess) return set_last_error(error);
  const int device = DeviceHeap::instance().device_of(pointer);
  void* address = const_cast<void*>(pointer);
  *attributes = device < 0 ? cudaPointerAttributes{cudaMemoryTypeUnregistered, cudaInvalidDeviceId,
                                                   nullptr, address}
                           : cudaPointerAttributes{cudaMemoryTypeDevice, device, address, nullptr};
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int) {
  const cudaError_t error = machine_error();
  if (error != cudaSuccess) return set_last_error(error);
  *stream = new CUstream_st{machine().current_device, /*capture=*/nullptr};
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (simt::engine::is_default(stream)) return set_last_error(cudaErrorInvalidResourceHandle);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const cudaError_t error = machine_error();
  if (error != cudaSuccess) return set_last_error(error);
  const bool capturing = simt::engine::capture_of(stream) != nullptr;
  return set_last_error(capturing ? cudaErrorStreamCaptureUnsupported : cudaSuccess);
}

cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* device) {
  const cudaError_t error = machine_error();
  if (error != cudaSuccess) return set_last_error(error);
  *device = simt::engine::is_default(stream) ? machine().current_device : stream->device;
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const cudaError_t error = machine_error();
  if (error == cudaSuccess) {
    const bool capturing = simt::engine::capture_of(stream) != nullptr;
    *status = capturing ? cudaStreamCaptureStatusActive : machine().capture;
  }
  return set_last_error(error);
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  const cudaError_t error = machine_error();
  if (error != cudaSuccess) return set_last_error(error);
  if (function == nullptr) return set_last_error(cudaErrorInvalidDeviceFunction);
  if (machine().kernel_image_missing) return set_last_error(cudaErrorNoKernelImageForDevice);
  *attributes = {};
  const simt::Device& device = simt::engine::current_device();
  attributes->maxThreadsPerBlock = simt::engine::kMaxBlockThreads;
  attributes->ptxVersion = device.major * 10 + device.minor;
  attributes->binaryVersion = attributes->ptxVersion;
  attributes->maxDynamicSharedSizeBytes = simt::engine::AllowedSharedBytes::instance().of(function);
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  const cudaError_t error = machine_error();
  if (error != cudaSuccess) return set_last_error(error);
  if (function == nullptr) return set_last_error(cudaErrorInvalidDeviceFunction);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<std::size_t>(value) > simt::options().max_shared_bytes) {
    return set_last_error(cudaErrorInvalidValue);
  }
  simt::engine::AllowedSharedBytes::instance().set(function, value);
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function,
                                                          int block_threads,
                                                          std::size_t dynamic_shared_bytes) {
  const cudaError_t error = machine_error();
  if (error != cudaSuccess) return set_last_error(error);
  if (function == nullptr) return set_last_error(cudaErrorInvalidDeviceFunction);
  if (machine().kernel_image_missing) return set_last_error(cudaErrorNoKernelImageForDevice);
  if (blocks == nullptr || block_threads <= 0) return set_last_error(cudaErrorInvalidValue);
  // A kernel that was not allowed what it asks for runs nowhere; that is not an error.
  const int allowed = simt::engine::AllowedSharedBytes::instance().of(function);
  const bool possible = block_threads <= simt::engine::kMaxBlockThreads &&
                        dynamic_shared_bytes <= static_cast<std::size_t>(allowed);
  *blocks = possible ? simt::engine::resident_blocks(block_threads, dynamic_shared_bytes) : 0;
  return cudaSuccess;
}
