// The block's 16 hardware barriers, by number. Barrier 0 is __syncthreads().
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

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

/// named_barrier_sync(); whether `predicate` is true in any of the threads.
/// PTX ISA: barrier.red.or.aligned.pred.
__device__ inline bool named_barrier_or(int id, int num_threads, bool predicate) {
#if defined(MINF_SIMT)
  return simt::named_barrier_or(id, num_threads, predicate);
#else
  uint32_t result;
  asm volatile(
      "{.reg .pred p, q;\n setp.ne.u32 p, %3, 0;\n barrier.red.or.aligned.pred q, %1, %2, p;\n"
      " selp.u32 %0, 1, 0, q;}"
      : "=r"(result)
      : "r"(id), "r"(num_threads), "r"(static_cast<uint32_t>(predicate))
      : "memory");
  return result != 0;
#endif
}

}  // namespace minference::arch
