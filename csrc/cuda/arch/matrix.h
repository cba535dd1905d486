// Warp-wide matrix instructions: ldmatrix, stmatrix, mma.sync. All 32 lanes take part.
//
// Fragments, lane = 4 g + t (PTX ISA, "Matrix Fragments for mma.m16n8k16"); pairs are low, high
// half:
//     A 16x16  a[0] (g, 2t..2t+1)  a[1] (g + 8, 2t..)  a[2] (g, 2t + 8..)  a[3] (g + 8, 2t + 8..)
//     B 16x8   b[0] (k = 2t..2t+1, n = g)              b[1] (k = 2t + 8.., n = g)
//     C 16x8   c[0] (g, 2t)  c[1] (g, 2t + 1)  c[2] (g + 8, 2t)  c[3] (g + 8, 2t + 1)
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/arch/element.h"
#include "cuda/arch/shared.h"

namespace minference::arch {

/// Loads four 8x8 matrices of 16-bit elements. Lane l passes the address of row l % 8 of matrix l /
/// 8 (16 bytes, 16-byte aligned) and receives in fragment[i] elements 2t, 2t + 1 of row g of matrix
/// i. It takes an address in the shared window because arithmetic on it needs half the registers of
/// a pointer's.
/// PTX ISA: ldmatrix.sync.aligned.m8n8.x4.shared.b16.
__device__ inline void ldmatrix_x4(uint32_t (&fragment)[4], uint32_t row) {
#if defined(MINF_SIMT)
  simt::ldmatrix(fragment, 4, /*transposed=*/false, simt::shared_pointer(row));
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(row)
               : "memory");
#endif
}
__device__ inline void ldmatrix_x4(uint32_t (&fragment)[4], const void* row) {
  ldmatrix_x4(fragment, shared_address(row));
}

/// The same, each matrix transposed: the lane receives elements (2t, g), (2t + 1, g).
/// PTX ISA: ldmatrix...trans.
__device__ inline void ldmatrix_x4_transposed(uint32_t (&fragment)[4], uint32_t row) {
#if defined(MINF_SIMT)
  simt::ldmatrix(fragment, 4, /*transposed=*/true, simt::shared_pointer(row));
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(row)
               : "memory");
#endif
}
__device__ inline void ldmatrix_x4_transposed(uint32_t (&fragment)[4], const void* row) {
  ldmatrix_x4_transposed(fragment, shared_address(row));
}

/// Stores four 8x8 matrices, the reverse of ldmatrix_x4. Needs sm_90.
/// PTX ISA: stmatrix.sync.aligned.m8n8.x4.shared.b16.
__device__ inline void stmatrix_x4(void* row, const uint32_t (&fragment)[4]) {
#if defined(MINF_SIMT)
  simt::stmatrix(row, fragment, 4, /*transposed=*/false);
#else
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
               :
               : "r"(shared_address(row)), "r"(fragment[0]), "r"(fragment[1]), "r"(fragment[2]),
                 "r"(fragment[3])
               : "memory");
#endif
}

/// c += A B, products and sums in float32. PTX ISA: mma.sync.aligned.m16n8k16.row.col.f32.
template <typename Element>
__device__ inline void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  static_assert(kIsElement<Element>);
#if defined(MINF_SIMT)
  simt::mma_m16n8k16(c, a, b, std::is_same_v<Element, BFloat16>);
#else
  if constexpr (std::is_same_v<Element, BFloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#endif
}

}  // namespace minference::arch
