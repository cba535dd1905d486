// wgmma: matrix products of a warpgroup, four consecutive warps whose first is a multiple of four,
// on operands in shared memory (sm_90a). The tensor cores work on their own: between the
// instruction and wgmma_wait() its accumulators, its register operand and its shared memory belong
// to them.
//
// Fragments, thread = 32 w + 4 g + t of the warpgroup (PTX ISA, "Register Fragments for
// wgmma.mma_async.m64nNk16"); all 128 threads issue the same instruction with the same descriptors:
//     D 64xN   d[4 j + e]  row 16 w + g + 8 (e / 2), column 8 j + 2 t + e % 2
//     A 64x16  a[0] (16 w + g, k = 2t..2t+1)      a[1] (16 w + g + 8, 2t..)
//              a[2] (16 w + g, k = 2t + 8..)      a[3] (16 w + g + 8, 2t + 8..)
// So d[8 j..8 j + 7] of one product, packed in pairs, are a[0..3] of the next at k = 16 j.
//
// Protocol: write accumulators and register operands; wgmma_fence() of them; any number of wgmma
// that may share accumulators of one shape; wgmma_commit_group(); wgmma_wait<n>(); keep_registers()
// on each accumulator of the groups waited for.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/arch/element.h"
#include "cuda/arch/emulation_sm90.h"
#include "cuda/arch/matrix_descriptor.h"
#if !defined(MINF_SIMT)
#include "cuda/arch/wgmma_operands.h"
#endif

namespace minference::arch {

/// No instruction: the compiler may not move an access to these registers across it. It does not
/// know that a product is unfinished before wgmma_wait().
template <int kRegisters>
__device__ inline void keep_registers(float (&d)[kRegisters]) {
#if defined(MINF_SIMT)
  simt::keep_registers(d, kRegisters);
#else
#pragma unroll
  for (int i = 0; i < kRegisters; ++i) asm volatile("" : "+f"(d[i])::"memory");
#endif
}

/// The same for A operands. (Emulated products look at their operands themselves.)
template <int kSteps>
__device__ inline void keep_registers([[maybe_unused]] uint32_t (&a)[kSteps][4]) {
#if !defined(MINF_SIMT)
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) asm volatile("" : "+r"(a[step][i])::"memory");
  }
#endif
}

/// Orders this warpgroup's accesses to registers before the wgmma that follow; before the first,
/// and whenever registers have been written since. `written`: the accumulators and A operands that
/// were, none of a product under way. That their values are there at the instruction is for the
/// compiler: by its operands it depends on nothing. PTX ISA: wgmma.fence.sync.aligned.
/// Source: FlashAttention-3 and CUTLASS name accumulators and A on both sides of their products.
template <typename... Registers>
__device__ inline void wgmma_fence(Registers&... written) {
  (keep_registers(written), ...);
#if defined(MINF_SIMT)
  simt::wgmma_fence();
#else
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

/// Closes the group of the warpgroup's products. PTX ISA: wgmma.commit_group.sync.aligned.
__device__ inline void wgmma_commit_group() {
#if defined(MINF_SIMT)
  simt::wgmma_commit_group();
#else
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

/// Waits until at most kPending groups are unfinished. PTX ISA: wgmma.wait_group.sync.aligned.
template <int kPending>
__device__ inline void wgmma_wait() {
  static_assert(0 <= kPending && kPending <= 7);
#if defined(MINF_SIMT)
  simt::wgmma_wait(kPending);
#else
  asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(kPending) : "memory");
#endif
}

/// d = A B, or d += A B if `accumulate`: A 64x16 K-major and B 16xN in shared memory, N = 2
/// kRegisters a multiple of 16. PTX ISA: wgmma.mma_async.sync.aligned.m64nNk16.f32.
template <typename Element, Major kMajorB, int kRegisters>
__device__ inline void wgmma(float (&d)[kRegisters], MatrixDescriptor a, MatrixDescriptor b,
                             bool accumulate) {
  static_assert(kIsElement<Element> && kRegisters % 8 == 0 && kRegisters <= 128);
  constexpr int kTransposedB = kMajorB == Major::kMn ? 1 : 0;
#if defined(MINF_SIMT)
  simt::wgmma_shared(d, 2 * kRegisters, a.bits, b.bits, accumulate, kTransposedB != 0,
                     std::is_same_v<Element, BFloat16>);
#else
  const uint32_t scale_d = accumulate ? 1 : 0;
  MINF_WGMMA_SHARED_EACH
#endif
}

/// The same with A in registers.
template <typename Element, Major kMajorB, int kRegisters>
__device__ inline void wgmma(float (&d)[kRegisters], const uint32_t (&a)[4], MatrixDescriptor b,
                             bool accumulate) {
  static_assert(kIsElement<Element> && kRegisters % 8 == 0 && kRegisters <= 128);
  constexpr int kTransposedB = kMajorB == Major::kMn ? 1 : 0;
#if defined(MINF_SIMT)
  simt::wgmma_registers(d, 2 * kRegisters, a, b.bits, accumulate, kTransposedB != 0,
                        std::is_same_v<Element, BFloat16>);
#else
  const uint32_t scale_d = accumulate ? 1 : 0;
  MINF_WGMMA_REGISTERS_EACH
#endif
}

}  // namespace minference::arch
