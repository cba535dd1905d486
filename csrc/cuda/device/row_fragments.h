// Operand fragments of mma.m16n8k16 from swizzled rows in shared memory (lane = 4 g + t, see
// arch/matrix.h). By whole warps.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/matrix.h"
#include "cuda/device/swizzled_rows.h"
#include "cuda/device/thread_group.h"

namespace minference::device {

/// A: rows [first, first + 16), dims [16 k, 16 k + 16).
template <typename Rows, typename Element>
__device__ inline void load_a(uint32_t (&a)[4], const Element* rows, int first, int k) {
  const int lane = lane_index();
  arch::ldmatrix_x4(a, rows + Rows::offset(first + lane % 16, 2 * k + lane / 16));
}

/// B, dims along k: rows [first, first + 16) are the 8 columns each of b[0], b[1].
template <typename Rows, typename Element>
__device__ inline void load_b(uint32_t (&b)[2][2], const Element* rows, int first, int k) {
  const int lane = lane_index();
  uint32_t words[4];
  arch::ldmatrix_x4(words,
                    rows + Rows::offset(first + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
  b[0][0] = words[0];
  b[0][1] = words[1];
  b[1][0] = words[2];
  b[1][1] = words[3];
}

/// B, rows along k: rows [first, first + 16), of which dims [16 n, 16 n + 16) are the 8 columns
/// each of b[0], b[1].
template <typename Rows, typename Element>
__device__ inline void load_b_transposed(uint32_t (&b)[2][2], const Element* rows, int first,
                                         int n) {
  const int lane = lane_index();
  uint32_t words[4];
  arch::ldmatrix_x4_transposed(words, rows + Rows::offset(first + lane % 16, 2 * n + lane / 16));
  b[0][0] = words[0];
  b[0][1] = words[1];
  b[1][0] = words[2];
  b[1][1] = words[3];
}

}  // namespace minference::device
