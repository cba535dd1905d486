// The block's 16 hardware barriers, by number. Barrier 0 is __syncthreads().
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/arch/emulation.h"

namespace minference::arch {

/// Waits until `num_threads` threads (a multiple of 32) have arrived at barrier `id` (1 to 15);
/// orders their memory accesses. PTX ISA: barrier.sync.aligned.
__device__ inline void named_barrier_sync(int id, int num_threads) {
#if defined(MINF_SIMT)
  simt::named_barrier_sync(id, num_threads);
#else
  asm volatile("barrier.sync.aligned %0, %1;" : : "r"(id), "r"(num_threads) : "memory");
#endif
}

/// Arrives without waiting. PTX ISA: barrier.arrive.aligned.
__device__ inline void named_barrier_arrive(int id, int num_threads) {
#if defined(MINF_SIMT)
  simt::named_barrier_arrive(id, num_threads);
#else
  asm volatile("barrier.arrive.aligned %0, %1;" : : "r"(id), "r"(num_threads) : "memory");
#endif
}

}  // namespace minference::arch
