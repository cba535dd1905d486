// Synchronisation within a block: the 16 hardware barriers by number, mbarriers in shared memory
// (sm_90), and the fence between the two ways to shared memory (sm_90).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/emulation.h"
#include "cuda/arch/shared.h"

namespace minference::arch {

// ---- Named barriers: 1 to 15; barrier 0 is __syncthreads() --------------------------------------

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

// ---- mbarriers ----------------------------------------------------------------------------------
//
// They count arrivals and landed bytes, for copies that complete by themselves. Phases alternate: a
// phase ends when `arrivals` threads have arrived and no announced byte is outstanding; the next
// phase then begins with the same number of arrivals. Phases 0, 2, 4... have parity 0. Readers of a
// ring's stage wait for its barrier with parity (round & 1), its writer with (round & 1) ^ 1: the
// writer's first round passes at once, because the phase before phase 0 counts as complete.

/// Opaque, in shared memory; touched by the functions below only.
struct alignas(8) Mbarrier {
  uint64_t bits;
};

/// Starts phase 0 for `arrivals` (1 to 2^20 - 1) arrivals per phase. One thread; before others use
/// the barrier: fence_mbarrier_init(), then a block barrier. PTX ISA: mbarrier.init.
__device__ inline void mbarrier_init(Mbarrier& barrier, int arrivals) {
#if defined(MINF_SIMT)
  simt::mbarrier_init(&barrier, arrivals);
#else
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
               :
               : "r"(shared_address(&barrier)), "r"(arrivals)
               : "memory");
#endif
}

/// Ends the barrier's life: its bytes may be used for something else. PTX ISA: mbarrier.inval.
__device__ inline void mbarrier_inval(Mbarrier& barrier) {
#if defined(MINF_SIMT)
  simt::mbarrier_inval(&barrier);
#else
  asm volatile("mbarrier.inval.shared::cta.b64 [%0];" : : "r"(shared_address(&barrier)) : "memory");
#endif
}

/// Makes this thread's mbarrier_init() visible to bulk copies. PTX ISA: fence.mbarrier_init.
__device__ inline void fence_mbarrier_init() {
#if defined(MINF_SIMT)
  simt::fence_mbarrier_init();
#else
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

/// One arrival; releases what the thread did before. PTX ISA: mbarrier.arrive.
__device__ inline void mbarrier_arrive(Mbarrier& barrier) {
#if defined(MINF_SIMT)
  simt::mbarrier_arrive(&barrier);
#else
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];"
               :
               : "r"(shared_address(&barrier))
               : "memory");
#endif
}

/// Announces `bytes` (at most 2^20 - 1 outstanding) that bulk copies will land in the current
/// phase, then arrives. A copy may land before its bytes are announced, while the phase lacks an
/// arrival. PTX ISA: mbarrier.arrive.expect_tx.
__device__ inline void mbarrier_arrive_expect_tx(Mbarrier& barrier, uint32_t bytes) {
#if defined(MINF_SIMT)
  simt::mbarrier_arrive_expect_tx(&barrier, bytes);
#else
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
               :
               : "r"(shared_address(&barrier)), "r"(bytes)
               : "memory");
#endif
}

/// Announces without arriving. PTX ISA: mbarrier.expect_tx.
__device__ inline void mbarrier_expect_tx(Mbarrier& barrier, uint32_t bytes) {
#if defined(MINF_SIMT)
  simt::mbarrier_expect_tx(&barrier, bytes);
#else
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;"
               :
               : "r"(shared_address(&barrier)), "r"(bytes)
               : "memory");
#endif
}

/// Whether the latest phase of this parity (0 or 1) is complete; then acquires what its arrivals
/// released and its copies wrote. Does not wait. PTX ISA: mbarrier.test_wait.parity.
__device__ inline bool mbarrier_test_wait(const Mbarrier& barrier, uint32_t parity) {
#if defined(MINF_SIMT)
  return simt::mbarrier_test_wait(&barrier, parity);
#else
  uint32_t complete;
  asm volatile(
      "{.reg .pred p;\n mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      " selp.u32 %0, 1, 0, p;}"
      : "=r"(complete)
      : "r"(shared_address(&barrier)), "r"(parity)
      : "memory");
  return complete != 0;
#endif
}

/// How long the hardware may let a thread sleep in mbarrier_try_wait(): longer than any wait of a
/// working kernel, so that a thread wakes only when its phase is complete. Without the hint the
/// hardware's own limit applies, and each time it expires the waiting warp issues a round of its
/// loop beside warps that have work. 10 ms, as in CUTLASS (ClusterBarrier::wait).
inline constexpr uint32_t kMbarrierSleepNanoseconds = 10'000'000;

/// mbarrier_test_wait(), after sleeping until it is true, for kMbarrierSleepNanoseconds, or for a
/// time that the hardware limits. PTX ISA: mbarrier.try_wait.parity, with suspendTimeHint.
__device__ inline bool mbarrier_try_wait(const Mbarrier& barrier, uint32_t parity) {
#if defined(MINF_SIMT)
  return simt::mbarrier_try_wait(&barrier, parity);
#else
  uint32_t complete;
  asm volatile(
      "{.reg .pred p;\n mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2, %3;\n"
      " selp.u32 %0, 1, 0, p;}"
      : "=r"(complete)
      : "r"(shared_address(&barrier)), "r"(parity), "r"(kMbarrierSleepNanoseconds)
      : "memory");
  return complete != 0;
#endif
}

/// Waits until the latest phase of this parity is complete. A waiter that is two phases late waits
/// for the wrong one.
__device__ inline void mbarrier_wait(const Mbarrier& barrier, uint32_t parity) {
  while (!mbarrier_try_wait(barrier, parity)) {
  }
}

/// Arrives once this thread's cp.async copies so far have landed. It is one of the phase's
/// arrivals, which init counted. From then on, wait for the copies by the barrier only. Before
/// wgmma or a bulk copy reads them, whoever has waited executes fence_proxy_async(): the thread
/// that copied cannot.
/// PTX ISA: cp.async.mbarrier.arrive.noinc.
__device__ inline void cp_async_mbarrier_arrive_noinc(Mbarrier& barrier) {
#if defined(MINF_SIMT)
  simt::cp_async_mbarrier_arrive_noinc(&barrier);
#else
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];"
               :
               : "r"(shared_address(&barrier))
               : "memory");
#endif
}

// ---- Proxies ------------------------------------------------------------------------------------
//
// Ordinary loads and stores reach shared memory by the generic proxy; bulk copies and wgmma reach
// it by the async proxy. Only a fence orders the two.

/// Lets later wgmma and bulk copies read the shared memory that this thread wrote with ordinary
/// stores, or in which it saw its cp.async copies land; lets bulk copies overwrite what it read
/// with ordinary loads, including ldmatrix. Every writer and reader executes it, before the barrier
/// that tells whoever starts the copy or product. Not needed after a bulk copy, because waiting for
/// its mbarrier is enough, nor after wgmma, whose reads use the same proxy as a copy's writes.
/// PTX ISA: fence.proxy.async.
__device__ inline void fence_proxy_async() {
#if defined(MINF_SIMT)
  simt::fence_proxy_async();
#else
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

}  // namespace minference::arch
