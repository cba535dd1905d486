// The host API: options, device memory, launches.
// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <utility>

#include "device_heap.h"
#include "engine.h"
#include "graphs.h"
#include "runtime.h"

namespace simt {

using engine::DeviceHeap;

Options& options() {
  static Options options;
  return options;
}

void* device_malloc(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  return DeviceHeap::instance().allocate(bytes, machine().current_device);
}

void device_free(void* pointer) {
  if (pointer != nullptr && !DeviceHeap::instance().release(pointer)) {
    throw std::invalid_argument("device_free: not the start of an allocation");
  }
}

void mark_initialized(void* pointer, std::size_t bytes) {
  if (bytes == 0) return;
  DeviceHeap& heap = DeviceHeap::instance();
  if (!heap.is_allocated(pointer, bytes)) {
    throw std::invalid_argument("mark_initialized: not inside one allocation");
  }
  heap.set_initialized(pointer, bytes);
}

std::size_t first_uninitialized(const void* pointer, std::size_t bytes) {
  if (bytes == 0) return 0;
  DeviceHeap& heap = DeviceHeap::instance();
  if (!heap.is_allocated(pointer, bytes)) {
    throw std::invalid_argument("first_uninitialized: not inside one allocation");
  }
  return heap.first_uninitialized(pointer, bytes);
}

std::size_t num_allocations() { return DeviceHeap::instance().num_allocations(); }

namespace {

constexpr unsigned kMaxGridX = 2147483647;
constexpr unsigned kMaxGridYZ = 65535;
constexpr unsigned kMaxBlockZ = 64;

bool shape_is_possible(const KernelCall& call) {
  const dim3& grid = call.grid;
  const dim3& block = call.block;
  const bool none_empty =
      grid.x > 0 && grid.y > 0 && grid.z > 0 && block.x > 0 && block.y > 0 && block.z > 0;
  return none_empty && grid.x <= kMaxGridX && grid.y <= kMaxGridYZ && grid.z <= kMaxGridYZ &&
         block.x <= engine::kMaxThreads && block.y <= engine::kMaxThreads &&
         block.z <= kMaxBlockZ && block.x * block.y * block.z <= engine::kMaxThreads;
}

cudaError_t launch_error(const KernelCall& call) {
  const cudaError_t error = engine::stream_error(call.stream);
  if (error != cudaSuccess) return error;
  if (machine().kernel_image_missing) return cudaErrorNoKernelImageForDevice;
  if (machine().next_launch_error != cudaSuccess) {
    return std::exchange(machine().next_launch_error, cudaSuccess);
  }
  if (!shape_is_possible(call)) return cudaErrorInvalidConfiguration;
  if (call.shared_bytes > options().max_shared_bytes ||
      call.shared_bytes > engine::SharedMemory::kWindowBytes) {
    return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

/// Keeps a copy of the call's arguments for as long as the graph lives.
void capture(const KernelCall& call, CUgraph_st& graph) {
  struct alignas(128) Piece {  // As aligned as any argument, for example a tensor map.
    std::byte bytes[128];
  };
  const std::shared_ptr<Piece[]> arguments(
      new Piece[(call.argument_bytes + sizeof(Piece) - 1) / sizeof(Piece)]);
  std::memcpy(arguments.get(), call.arguments, call.argument_bytes);
  graph.work.emplace_back([call, arguments](cudaStream_t launched_on) {
    KernelCall again = call;
    again.stream = launched_on;
    again.arguments = arguments.get();
    return launch_kernel(again);
  });
}

}  // namespace

cudaError_t launch_kernel(const KernelCall& call) {
  const cudaError_t error = launch_error(call);
  if (error != cudaSuccess) return engine::set_last_error(error);
  if (CUgraph_st* graph = engine::capture_of(call.stream)) {
    capture(call, *graph);
    return cudaSuccess;
  }
  engine::Engine::instance().launch(call);
  return cudaSuccess;
}

}  // namespace simt
