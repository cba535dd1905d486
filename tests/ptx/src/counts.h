// What a launch did, counted exactly: nothing of it depends on time or on the machine. On one host
// thread two runs give the same counts (by seed, with Landing::kRandom). Another schedule (more
// host threads, another seed or landing) changes only polls that fail with the loops around them,
// and what a kernel makes of the order of its atomics. Counts to be kept are those of
// Landing::kAtOnce on one host thread.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "types.h"

namespace ptxsim {

/// Instructions are always counted, the rest where Options::count is set.
struct Counts {
  /// Warp instructions that ran with at least one lane, by place in the kernel.
  std::vector<u64> ops;
  u64 warp_instructions = 0;  // Issued, whether or not the guard holds in a lane.
  u64 thread_instructions = 0;
  u64 polls_failed = 0;  // Of mbarrier.try_wait: depends on the schedule, unlike all others.
  // Shared memory: what a wavefront of 128 bytes can serve, and how many a conflict-free access
  // needs.
  u64 shared_accesses = 0, shared_wavefronts = 0, shared_wavefronts_ideal = 0;
  u64 global_accesses = 0, global_sectors = 0, global_bytes = 0;
  u64 tma_loads = 0, tma_load_bytes = 0, tma_store_bytes = 0, cp_async_bytes = 0;
  u64 wgmma_flops = 0, mma_flops = 0;

  void add(const Counts& other);
};

struct Warp;

/// An access of `bytes` a lane to shared or global memory: `addresses` by lane.
void count_shared_access(Warp& warp, const u64* addresses, u32 lanes, u32 bytes);
void count_global_access(Warp& warp, const u64* addresses, u32 lanes, u32 bytes);
/// ldmatrix, stmatrix: eight rows of 16 bytes for each of `num_matrices`.
void count_matrix_rows(Warp& warp, const u64* addresses, u32 num_matrices);

}  // namespace ptxsim
