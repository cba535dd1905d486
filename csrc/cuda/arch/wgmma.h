// wgmma: matrix products of a warpgroup (four consecutive warps, the first a multiple of four) on
// operands in shared memory (sm_90a). The tensor cores work asynchronously: between the instruction
// and wgmma_wait(), its accumulators, register operand and shared memory belong to them.
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
#include "cuda/arch/emulation.h"
#include "cuda/arch/shared.h"
#include "cuda/arch/swizzle.h"

#if !defined(MINF_SIMT)
// The instruction as text for each N, its accumulators' operand numbers and its operands. PTX names
// every register, so a list per N is needed; in steps of 16 columns, 8 registers.
// clang-format off
#define MINF_WGMMA_D8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define MINF_WGMMA_D16 MINF_WGMMA_D8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define MINF_WGMMA_D24 MINF_WGMMA_D16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define MINF_WGMMA_D32 MINF_WGMMA_D24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define MINF_WGMMA_D40 MINF_WGMMA_D32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define MINF_WGMMA_D48 MINF_WGMMA_D40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define MINF_WGMMA_D56 MINF_WGMMA_D48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define MINF_WGMMA_D64 MINF_WGMMA_D56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define MINF_WGMMA_D72 MINF_WGMMA_D64 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define MINF_WGMMA_D80 MINF_WGMMA_D72 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define MINF_WGMMA_D88 MINF_WGMMA_D80 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define MINF_WGMMA_D96 MINF_WGMMA_D88 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define MINF_WGMMA_D104 MINF_WGMMA_D96 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define MINF_WGMMA_D112 MINF_WGMMA_D104 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define MINF_WGMMA_D120 MINF_WGMMA_D112 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define MINF_WGMMA_D128 MINF_WGMMA_D120 ", %120, %121, %122, %123, %124, %125, %126, %127"

#define MINF_WGMMA_OPERANDS_FROM(i)                                                            \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
  "+f"(d[i + 6]), "+f"(d[i + 7])
#define MINF_WGMMA_OPERANDS8 MINF_WGMMA_OPERANDS_FROM(0)
#define MINF_WGMMA_OPERANDS16 MINF_WGMMA_OPERANDS8, MINF_WGMMA_OPERANDS_FROM(8)
#define MINF_WGMMA_OPERANDS24 MINF_WGMMA_OPERANDS16, MINF_WGMMA_OPERANDS_FROM(16)
#define MINF_WGMMA_OPERANDS32 MINF_WGMMA_OPERANDS24, MINF_WGMMA_OPERANDS_FROM(24)
#define MINF_WGMMA_OPERANDS40 MINF_WGMMA_OPERANDS32, MINF_WGMMA_OPERANDS_FROM(32)
#define MINF_WGMMA_OPERANDS48 MINF_WGMMA_OPERANDS40, MINF_WGMMA_OPERANDS_FROM(40)
#define MINF_WGMMA_OPERANDS56 MINF_WGMMA_OPERANDS48, MINF_WGMMA_OPERANDS_FROM(48)
#define MINF_WGMMA_OPERANDS64 MINF_WGMMA_OPERANDS56, MINF_WGMMA_OPERANDS_FROM(56)
#define MINF_WGMMA_OPERANDS72 MINF_WGMMA_OPERANDS64, MINF_WGMMA_OPERANDS_FROM(64)
#define MINF_WGMMA_OPERANDS80 MINF_WGMMA_OPERANDS72, MINF_WGMMA_OPERANDS_FROM(72)
#define MINF_WGMMA_OPERANDS88 MINF_WGMMA_OPERANDS80, MINF_WGMMA_OPERANDS_FROM(80)
#define MINF_WGMMA_OPERANDS96 MINF_WGMMA_OPERANDS88, MINF_WGMMA_OPERANDS_FROM(88)
#define MINF_WGMMA_OPERANDS104 MINF_WGMMA_OPERANDS96, MINF_WGMMA_OPERANDS_FROM(96)
#define MINF_WGMMA_OPERANDS112 MINF_WGMMA_OPERANDS104, MINF_WGMMA_OPERANDS_FROM(104)
#define MINF_WGMMA_OPERANDS120 MINF_WGMMA_OPERANDS112, MINF_WGMMA_OPERANDS_FROM(112)
#define MINF_WGMMA_OPERANDS128 MINF_WGMMA_OPERANDS120, MINF_WGMMA_OPERANDS_FROM(120)

// Uses d, a, b, scale_d and kTransposedB of the enclosing function. The numbers o0, o1... are those
// of the operands after the `count` accumulators. Scales of a and b are 1, a is K-major.
#define MINF_WGMMA_SHARED_TYPE(n, count, type, o0, o1, o2, o3)                            \
  asm volatile("{.reg .pred p;\n setp.ne.b32 p, %" #o2 ", 0;\n"                           \
               " wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type           \
               " {" MINF_WGMMA_D##count "}, %" #o0 ", %" #o1 ", p, 1, 1, 0, %" #o3 ";}"   \
               : MINF_WGMMA_OPERANDS##count                                               \
               : "l"(a.bits), "l"(b.bits), "r"(scale_d), "n"(kTransposedB)                \
               : "memory")
#define MINF_WGMMA_REGISTERS_TYPE(n, count, type, o0, o1, o2, o3, o4, o5, o6)             \
  asm volatile("{.reg .pred p;\n setp.ne.b32 p, %" #o5 ", 0;\n"                           \
               " wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type           \
               " {" MINF_WGMMA_D##count "}, {%" #o0 ", %" #o1 ", %" #o2 ", %" #o3 "}, %"  \
               #o4 ", p, 1, 1, %" #o6 ";}"                                                \
               : MINF_WGMMA_OPERANDS##count                                               \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.bits), "r"(scale_d),   \
                 "n"(kTransposedB)                                                        \
               : "memory")
#define MINF_WGMMA_SHARED(n, count, ...)                                                  \
  if constexpr (kRegisters == count && std::is_same_v<Element, BFloat16>) {               \
    MINF_WGMMA_SHARED_TYPE(n, count, "bf16", __VA_ARGS__);                                \
  } else if constexpr (kRegisters == count) {                                             \
    MINF_WGMMA_SHARED_TYPE(n, count, "f16", __VA_ARGS__);                                 \
  }
#define MINF_WGMMA_REGISTERS(n, count, ...)                                               \
  if constexpr (kRegisters == count && std::is_same_v<Element, BFloat16>) {               \
    MINF_WGMMA_REGISTERS_TYPE(n, count, "bf16", __VA_ARGS__);                             \
  } else if constexpr (kRegisters == count) {                                             \
    MINF_WGMMA_REGISTERS_TYPE(n, count, "f16", __VA_ARGS__);                              \
  }

#define MINF_WGMMA_SHARED_EACH \
  MINF_WGMMA_SHARED(16, 8, 8, 9, 10, 11) \
  MINF_WGMMA_SHARED(32, 16, 16, 17, 18, 19) \
  MINF_WGMMA_SHARED(48, 24, 24, 25, 26, 27) \
  MINF_WGMMA_SHARED(64, 32, 32, 33, 34, 35) \
  MINF_WGMMA_SHARED(80, 40, 40, 41, 42, 43) \
  MINF_WGMMA_SHARED(96, 48, 48, 49, 50, 51) \
  MINF_WGMMA_SHARED(112, 56, 56, 57, 58, 59) \
  MINF_WGMMA_SHARED(128, 64, 64, 65, 66, 67) \
  MINF_WGMMA_SHARED(144, 72, 72, 73, 74, 75) \
  MINF_WGMMA_SHARED(160, 80, 80, 81, 82, 83) \
  MINF_WGMMA_SHARED(176, 88, 88, 89, 90, 91) \
  MINF_WGMMA_SHARED(192, 96, 96, 97, 98, 99) \
  MINF_WGMMA_SHARED(208, 104, 104, 105, 106, 107) \
  MINF_WGMMA_SHARED(224, 112, 112, 113, 114, 115) \
  MINF_WGMMA_SHARED(240, 120, 120, 121, 122, 123) \
  MINF_WGMMA_SHARED(256, 128, 128, 129, 130, 131)
#define MINF_WGMMA_REGISTERS_EACH \
  MINF_WGMMA_REGISTERS(16, 8, 8, 9, 10, 11, 12, 13, 14) \
  MINF_WGMMA_REGISTERS(32, 16, 16, 17, 18, 19, 20, 21, 22) \
  MINF_WGMMA_REGISTERS(48, 24, 24, 25, 26, 27, 28, 29, 30) \
  MINF_WGMMA_REGISTERS(64, 32, 32, 33, 34, 35, 36, 37, 38) \
  MINF_WGMMA_REGISTERS(80, 40, 40, 41, 42, 43, 44, 45, 46) \
  MINF_WGMMA_REGISTERS(96, 48, 48, 49, 50, 51, 52, 53, 54) \
  MINF_WGMMA_REGISTERS(112, 56, 56, 57, 58, 59, 60, 61, 62) \
  MINF_WGMMA_REGISTERS(128, 64, 64, 65, 66, 67, 68, 69, 70) \
  MINF_WGMMA_REGISTERS(144, 72, 72, 73, 74, 75, 76, 77, 78) \
  MINF_WGMMA_REGISTERS(160, 80, 80, 81, 82, 83, 84, 85, 86) \
  MINF_WGMMA_REGISTERS(176, 88, 88, 89, 90, 91, 92, 93, 94) \
  MINF_WGMMA_REGISTERS(192, 96, 96, 97, 98, 99, 100, 101, 102) \
  MINF_WGMMA_REGISTERS(208, 104, 104, 105, 106, 107, 108, 109, 110) \
  MINF_WGMMA_REGISTERS(224, 112, 112, 113, 114, 115, 116, 117, 118) \
  MINF_WGMMA_REGISTERS(240, 120, 120, 121, 122, 123, 124, 125, 126) \
  MINF_WGMMA_REGISTERS(256, 128, 128, 129, 130, 131, 132, 133, 134)
// clang-format on
#endif

namespace minference::arch {

// ---- Descriptors of operands in shared memory ---------------------------------------------------
//
// Operands are read in rows of swizzle_row_bytes(), eight rows to a group. `E` below is the number
// of 16-bit elements in a row.
//     K-major [mn][k]: a row holds E consecutive k of one mn. `stride_bytes`: from a group of 8 mn
//         to the next. In wider matrices each E columns are a panel of their own; the 16 k of a
//         wgmma lie in one panel. `leading_bytes` is used with Swizzle::kNone only: from the first
//         8 k to the next.
//     MN-major [k][mn]: a row holds E consecutive mn of one k. `stride_bytes`: from a group of 8 k
//         to the next; `leading_bytes`: from a panel of E mn to the next. With Swizzle::kNone the
//         two are exchanged.
// PTX ISA: wgmma, Matrix-descriptor and Strides.

/// Which index runs along a row.
enum class Major { kK, kMn };

struct MatrixDescriptor {
  uint64_t bits;
};

/// All sizes are multiples of 16 bytes below 2^18. The swizzle's pattern starts at a multiple of
/// its length; `start` may be anywhere in it: the k-th 16 columns of a K-major panel start 32 k
/// bytes in.
__device__ inline MatrixDescriptor matrix_descriptor(const void* start, Swizzle swizzle,
                                                     uint32_t leading_bytes,
                                                     uint32_t stride_bytes) {
  const auto encode = [](uint32_t bytes) { return static_cast<uint64_t>((bytes & 0x3ffff) >> 4); };
  const auto mode = static_cast<uint64_t>((4 - static_cast<uint32_t>(swizzle)) & 3);
  return {encode(shared_address(start)) | encode(leading_bytes) << 16 | encode(stride_bytes) << 32 |
          mode << 62};
}

/// A K-major panel of contiguous rows of swizzle_row_bytes().
__device__ inline MatrixDescriptor k_major_descriptor(const void* start, Swizzle swizzle) {
  return matrix_descriptor(start, swizzle, /*leading_bytes=*/16, 8 * swizzle_row_bytes(swizzle));
}

/// MN-major panels of rows of swizzle_row_bytes(), `panel_bytes` from one panel to the next.
__device__ inline MatrixDescriptor mn_major_descriptor(const void* start, Swizzle swizzle,
                                                       uint32_t panel_bytes) {
  return matrix_descriptor(start, swizzle, panel_bytes, 8 * swizzle_row_bytes(swizzle));
}

/// The same operand, `bytes` (a multiple of 16) further on.
__device__ inline MatrixDescriptor advance(MatrixDescriptor descriptor, uint32_t bytes) {
  return {descriptor.bits + (bytes >> 4)};
}

// ---- Products -----------------------------------------------------------------------------------

/// Emits no instruction, but keeps the compiler from moving an access to these registers across it:
/// the compiler does not know that a product is unfinished before wgmma_wait().
template <int kRegisters>
__device__ inline void keep_registers(float (&d)[kRegisters]) {
#if defined(MINF_SIMT)
  simt::keep_registers(d, kRegisters);
#else
#pragma unroll
  for (int i = 0; i < kRegisters; ++i) asm volatile("" : "+f"(d[i])::"memory");
#endif
}

/// The same for A operands. (Emulated products check their operands themselves.)
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

/// Orders this warpgroup's accesses to registers before the wgmma that follow. Needed before the
/// first one, and whenever registers have been written since. `written`: the accumulators and A
/// operands that were written, none of them in use by a running product. Naming them tells the
/// compiler that their values must be there at the instruction, which has no operands to say so.
/// PTX ISA: wgmma.fence.sync.aligned.
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
