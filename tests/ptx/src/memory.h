// The memory that kernels may touch: allocations, a block's shared memory, a lane's local memory.
// Generic addresses are the host's own, including those of local memory and parameters; shared
// addresses are offsets that begin at kSharedBase.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "ptx.h"
#include "types.h"

namespace ptxsim {

struct Warp;
struct Block;

// ---- Global memory: exact bytes of allocations. Must not change while a kernel runs. ------------

void add_memory(const void* begin, u64 bytes);
void remove_memory(const void* begin);
/// The allocation that holds `at`.
struct Allocation {
  const void* begin = nullptr;  // Null: there is none.
  u64 bytes = 0;
};
Allocation find_memory(const void* at);

// ---- Accesses of a kernel: fail() if they are out of bounds or not aligned to their own size. ---

u8* global_pointer(Warp& warp, u64 address, u64 bytes);  // Takes a generic or global address.
u8* shared_pointer(Warp& warp, u64 address, u64 bytes);  // Takes a shared address.
void check_aligned(Warp& warp, u64 address, u64 bytes, const char* what);

/// Resolves a lane's address in `space`: a .local address must be that lane's own, and a .global
/// one must not be in shared or local memory.
u8* lane_pointer(Warp& warp, u32 lane, Space space, u64 address, u64 bytes);
/// Resolves accesses of `bytes` per lane, checked and aligned to `bytes`, a power of two.
void resolve(Warp& warp, u32 lanes, Space space, const u64* addresses, u32 bytes, u8** pointers);

/// The block whose shared memory holds `at`; null if no block of the warp's cluster does.
Block* block_of(Warp& warp, const u8* at);
/// The shared::cluster address of what lies at `at`.
u64 cluster_address(const Block& block, const u8* at);

}  // namespace ptxsim
