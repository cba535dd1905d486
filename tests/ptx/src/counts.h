// Exact counts of what a launch did, independent of time and machine. On one host thread two runs
// give the same counts (with Landing::kRandom, for the same seed). Another schedule (more host
// threads, another seed or landing) changes only failed polls, the loops around them, and what a
// kernel makes of the order of its atomics. Counts that are kept use Landing::kAtOnce on one host
// thread.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "types.h"

namespace ptxsim {

/// Instructions are always counted, the rest where Options::count is set.
struct Counts {
  /// Warp instructions that ran with at least one lane, by position in the kernel.
  std::vector<u64> ops;
  u64 warp_instructions = 0;  // Issued, whether or not the guard holds in any lane.
  u64 thread_instructions = 0;
  u64 polls_failed = 0;  // mbarrier.try_wait: unlike the rest, depends on the schedule.
  // Shared memory: wavefronts of 128 bytes that were needed, and the number that conflict-free
  // accesses would need.
  u64 shared_accesses = 0, shared_wavefronts = 0, shared_wavefronts_ideal = 0;
  u64 global_accesses = 0, global_sectors = 0, global_bytes = 0;
  u64 tma_loads = 0, tma_load_bytes = 0, tma_store_bytes = 0, cp_async_bytes = 0;
  u64 wgmma_flops = 0, mma_flops = 0;

  void add(const Counts& other);
};

struct Warp;

/// Counts an access of `bytes` per lane to shared or global memory; `addresses` is indexed by lane.
void count_shared_access(Warp& warp, const u64* addresses, u32 lanes, u32 bytes);
void count_global_access(Warp& warp, const u64* addresses, u32 lanes, u32 bytes);
/// Counts an ldmatrix or stmatrix: eight rows of 16 bytes for each of `num_matrices`.
void count_matrix_rows(Warp& warp, const u64* addresses, u32 num_matrices);

}  // namespace ptxsim
