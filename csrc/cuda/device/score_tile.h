// S^T = K q^T on the tensor cores, 16 keys by 32 query rows per warp. Keys are the A operand, read
// from shared memory; queries are the B operand and stay in registers for all keys.
//
// Keys lie along M, so a thread (lane = 4 g + t) has few keys and many rows: keys g and g + 8, and
// rows 8 n + 2 t and 8 n + 2 t + 1 of each 8-row tile n. So it forms most of a sum over rows by
// itself; sums over keys stay per thread until the end.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

#include "cuda/arch/matrix.h"
#include "cuda/device/key_stream.h"
#include "cuda/device/online_softmax.h"
#include "cuda/device/thread_group.h"

namespace minference::device {

inline constexpr int kWarpRows = 32;
inline constexpr int kRowTiles = kWarpRows / 8;
inline constexpr int kStepKeys = 16;
inline constexpr int kThreadRows = 2 * kRowTiles;

__device__ inline int lane_key() { return lane_index() / 4; }      // g
__device__ inline int lane_row() { return lane_index() % 4 * 2; }  // 2 t

/// The warp's row that the thread's i-th row is.
__device__ inline int row_of(int i) { return i / 2 * 8 + lane_row() + i % 2; }

/// One step's scores as mma.sync leaves them. Of row tile n, [n][0..1] are those of key g and
/// [n][2..3] those of key g + 8.
struct ScoreTile {
  static constexpr int kRowTiles = device::kRowTiles;
  static constexpr int kThreadRows = device::kThreadRows;
  float s[kRowTiles][4];

  /// The thread's row i against its key j (0: g, 1: g + 8).
  __device__ float& at(int i, int j) { return s[i / 2][i % 2 + 2 * j]; }
};

/// 32 query rows of one head in registers, kHeadDim / 2 words of each thread.
template <typename Element, int kHeadDim>
struct QueryFragments {
  static constexpr int kSteps = kHeadDim / 16;
  uint32_t pairs[kRowTiles][kSteps][2];

  /// Rows past `num_rows` and dimensions past `head_dim` are 0. `rows` is 4-byte aligned; the
  /// stride is in pairs of elements. Each word is read once per block, so it does not go through
  /// shared memory.
  __device__ void load(const uint32_t* rows, int64_t row_stride_pairs, int32_t num_rows,
                       int32_t head_dim, QueryBits bits) {
#pragma unroll
    for (int n = 0; n < kRowTiles; ++n) {
      const int row = 8 * n + lane_key();
      const uint32_t* pair = rows + row * row_stride_pairs + lane_row() / 2;
#pragma unroll
      for (int i = 0; i < 2 * kSteps; ++i) {
        const bool exists = row < num_rows && 8 * i < head_dim;
        pairs[n][i / 2][i % 2] = ((exists ? pair[4 * i] : 0) & bits.keep) ^ bits.flip;
      }
    }
  }
};

/// Scores of keys [first, first + 16) of the tile.
template <typename Element, int kHeadDim>
__device__ inline ScoreTile score_keys(const KeyTile<Element, kHeadDim>& tile, int first,
                                       const QueryFragments<Element, kHeadDim>& query) {
  using Tile = KeyTile<Element, kHeadDim>;
  // ldmatrix: lanes 0..15 point at the 16 keys, dimensions 0..7 of a step; lanes 16..31 at 8..15.
  const Element* row =
      &tile.rows[(first + lane_index() % 16) * Tile::kPitch + lane_index() / 16 * kPieceElements];
  ScoreTile scores = {};
#pragma unroll
  for (int k = 0; k < kHeadDim / 16; ++k) {
    uint32_t keys[4];
    arch::ldmatrix_x4(keys, row + 16 * k);
#pragma unroll
    for (int n = 0; n < kRowTiles; ++n) {
      arch::mma_m16n8k16<Element>(scores.s[n], keys, query.pairs[n][k]);
    }
  }
  return scores;
}

// ---- Tiles of 16 keys ---------------------------------------------------------------------------
//
// In this layout with any number of rows: Tile has kRowTiles, kThreadRows and at().

/// FLT_MAX, the offset of rows that do not exist or are not finite.
inline constexpr float kNoRow = 3.402823466e+38f;

/// Sets scores to -inf where the key lies after the row. `ahead` is how far the step's first key
/// lies after the position of the warp's first row; it may be negative.
template <typename Tile>
__device__ inline void mask_causal(Tile& scores, int32_t ahead) {
  const int32_t thread_ahead = ahead + lane_key() - lane_row();
#pragma unroll
  for (int i = 0; i < Tile::kThreadRows; ++i) {
    const int row = i / 2 * 8 + i % 2;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      if (thread_ahead > row - 8 * j) scores.at(i, j) = -INFINITY;
    }
  }
}

}  // namespace minference::device
