// Records what the kernels' own functions do with shared memory and tensor cores when they are
// called directly: the interface of tests/simt with other functions behind it. Shared memory is an
// arena, ldmatrix and stmatrix move its bytes as the PTX ISA says, and products are recorded, not
// computed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace judges {

/// 1 MiB - 1 KiB at address 1024 of the shared window, aligned to 1 KiB. Pointers and addresses
/// have the same low 20 bits, because CuTe swizzles those of the pointer.
std::byte* shared_memory();
std::size_t shared_memory_bytes();
uint32_t shared_address(const void* pointer);

template <typename Storage>
Storage& shared_storage() {
  static_assert(alignof(Storage) <= 1024);
  return *reinterpret_cast<Storage*>(shared_memory());
}

/// A wgmma that was issued. `a`: the descriptor, or 0 with A in registers.
struct Product {
  int n;
  uint64_t a;
  uint64_t b;
  bool a_in_registers;
  bool accumulates;
  bool transposes_b;
};

/// Products since the last call.
std::vector<Product> take_products();

/// An mma.sync that a lane issued.
struct LaneProduct {
  uint32_t a[4];
  uint32_t b[2];
};
std::vector<LaneProduct> take_lane_products();

/// Runs `body` with threadIdx.x = thread.
void run_thread(int thread, const std::function<void()>& body);

/// Runs `body` as the 32 threads of a warp, one after the other, and does so twice: what ldmatrix
/// and shuffles give a lane comes from other lanes, so the first run only records it. Products of
/// the first run do not count. `body` must not choose addresses by what it loads.
void run_warp(int warp, const std::function<void(int lane)>& body);

}  // namespace judges
