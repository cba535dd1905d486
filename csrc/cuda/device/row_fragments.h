// Operand fragments of mma.m16n8k16 from swizzled rows in shared memory (lane = 4 g + t, see
// arch/matrix.h). By whole warps. Each lane passes the address of its own place: row_offset() for A
// and transposed B, key_offset() for B.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/matrix.h"
#include "cuda/device/swizzled_rows.h"
#include "cuda/device/thread_group.h"

namespace minference::device {

/// Offset of a lane's place in rows that are loaded along dims as A, or across them as B.
template <typename Rows>
__device__ inline uint32_t row_offset() {
  return Rows::offset(lane_index() % 16, lane_index() / 16);
}

/// The same in rows that are loaded along dims as B.
template <typename Rows>
__device__ inline uint32_t key_offset() {
  return Rows::offset(lane_index() / 16 * 8 + lane_index() % 8, lane_index() / 8 % 2);
}

/// A: rows [first, first + 16), dims [16 k, 16 k + 16). first: a multiple of 16.
template <typename Rows>
__device__ inline void load_a(uint32_t (&a)[4], uint32_t address, int first, int k) {
  arch::ldmatrix_x4(a, Rows::add_rows(Rows::add_pieces(address, 2 * k), first));
}

/// The four words that ldmatrix gives a lane, as two B operands.
__device__ inline void split_columns(uint32_t (&b)[2][2], const uint32_t (&words)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) b[i / 2][i % 2] = words[i];
}

/// B, dims along k: rows [first, first + 16) are the 8 columns each of b[0], b[1].
template <typename Rows>
__device__ inline void load_b(uint32_t (&b)[2][2], uint32_t address, int first, int k) {
  uint32_t words[4];
  arch::ldmatrix_x4(words, Rows::add_rows(Rows::add_pieces(address, 2 * k), first));
  split_columns(b, words);
}

/// B, rows along k: rows [first, first + 16), of which dims [16 n, 16 n + 16) are the 8 columns
/// each of b[0], b[1].
template <typename Rows>
__device__ inline void load_b_transposed(uint32_t (&b)[2][2], uint32_t address, int first, int n) {
  uint32_t words[4];
  arch::ldmatrix_x4_transposed(words, Rows::add_rows(Rows::add_pieces(address, 2 * n), first));
  split_columns(b, words);
}

}  // namespace minference::device
