// Device memory is host memory whose exact bytes the interpreter knows. It starts as 0xff: NaN as a
// float, out of bounds as an index.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime_api.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "errors.h"
#include "memory.h"
#include "ptxsim/runtime.h"
#include "streams.h"

namespace ptxsim::runtime {
namespace {

/// Follows each allocation, so that no two touch, nor do views that reach far past an end.
constexpr std::size_t kGap = 1 << 20;

struct Mapping {
  int device = 0;
  std::size_t bytes = 0;  // Includes the gap.
};

std::mutex allocations_mutex;
std::map<const void*, Mapping> allocations;

int device_of(const void* pointer) {
  const Allocation found = find_memory(pointer);
  const std::lock_guard lock(allocations_mutex);
  const auto known = allocations.find(found.begin);
  return known == allocations.end() ? cudaInvalidDeviceId : known->second.device;
}

cudaError_t copy(void* to, const void* from, std::size_t bytes) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t fill(void* at, int value, std::size_t bytes) {
  std::memset(at, value, bytes);
  return cudaSuccess;
}

}  // namespace

std::size_t num_allocations() {
  const std::lock_guard lock(allocations_mutex);
  return allocations.size();
}

PTXSIM_API cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (const cudaError_t error = machine_error(); error != cudaSuccess) return failed(error);
  *memory = nullptr;
  if (bytes == 0) return cudaSuccess;
  // Whole pages, so that they are aligned to at least cudaMalloc's 256 bytes. The gap's pages are
  // never touched.
  const std::size_t mapped_bytes = bytes + kGap;
  void* allocated = mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (allocated == MAP_FAILED) return failed(cudaErrorMemoryAllocation);
  std::memset(allocated, 0xff, bytes);
  const std::lock_guard lock(allocations_mutex);
  allocations[allocated] = {machine().current_device, mapped_bytes};
  add_memory(allocated, bytes);
  *memory = allocated;
  return cudaSuccess;
}
PTXSIM_API cudaError_t cudaFree(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  const std::lock_guard lock(allocations_mutex);
  const auto known = allocations.find(memory);
  if (known == allocations.end()) return failed(cudaErrorInvalidValue);
  remove_memory(memory);
  munmap(memory, known->second.bytes);
  allocations.erase(known);
  return cudaSuccess;
}
PTXSIM_API cudaError_t cudaMallocAsync(void** memory, size_t bytes, cudaStream_t) {
  return cudaMalloc(memory, bytes);
}
PTXSIM_API cudaError_t cudaFreeAsync(void* memory, cudaStream_t) { return cudaFree(memory); }
PTXSIM_API cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  *memory = std::malloc(bytes);
  return cudaSuccess;
}
PTXSIM_API cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  return cudaMallocHost(memory, bytes);
}
PTXSIM_API cudaError_t cudaFreeHost(void* memory) {
  std::free(memory);
  return cudaSuccess;
}

PTXSIM_API cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                                       cudaStream_t stream) {
  return enqueue(stream, [=] { return copy(to, from, bytes); });
}
PTXSIM_API cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}
PTXSIM_API cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t stream) {
  return enqueue(stream, [=] { return fill(at, value, bytes); });
}
PTXSIM_API cudaError_t cudaMemset(void* at, int value, size_t bytes) {
  return cudaMemsetAsync(at, value, bytes, nullptr);
}
PTXSIM_API cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = *total = std::size_t{80} << 30;
  return cudaSuccess;
}

PTXSIM_API cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes,
                                                const void* pointer) {
  if (const cudaError_t error = machine_error(); error != cudaSuccess) return failed(error);
  const int device = device_of(pointer);
  *attributes = {};
  attributes->device = device;
  if (device == cudaInvalidDeviceId) {
    attributes->type = cudaMemoryTypeUnregistered;
    attributes->hostPointer = const_cast<void*>(pointer);
  } else {
    attributes->type = cudaMemoryTypeDevice;
    attributes->devicePointer = const_cast<void*>(pointer);
  }
  return cudaSuccess;
}

}  // namespace ptxsim::runtime
