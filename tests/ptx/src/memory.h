// What kernels may touch: allocations, a block's shared memory, a lane's local memory. Generic
// addresses are the host's own; shared addresses are offsets, and begin at kSharedBase.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "types.h"

namespace ptxsim {

struct Warp;

// ---- Global memory: exact bytes of allocations. Not to be changed while a kernel runs.
// ----------------

void add_memory(const void* begin, u64 bytes);
void remove_memory(const void* begin);
/// The allocation that holds `at`.
struct Allocation {
  const void* begin = nullptr;  // Null: none.
  u64 bytes = 0;
};
Allocation find_memory(const void* at);

// ---- Accesses of a kernel: fail(), if they are out of bounds or not a multiple of their own size.
// -----

u8* global_pointer(Warp& warp, u64 address, u64 bytes);  // Of a generic or global address.
u8* shared_pointer(Warp& warp, u64 address, u64 bytes);  // Of shared::cta or shared::cluster.
void check_aligned(Warp& warp, u64 address, u64 bytes, const char* what);

}  // namespace ptxsim
