// What a warp of the vertical-slash estimators does with scores that come 16 keys at a time: each
// row's maximum and sum of exponentials, then the probabilities and their sums over columns and
// over diagonals.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "cuda/arch/math.h"
#include "cuda/device/score_tile.h"

namespace minference::device {

// ---- Row statistics -----------------------------------------------------------------------------
//
// A thread keeps the maximum and the sum of its rows over the keys it happens to hold; the 8
// threads of a row combine theirs at the end.

/// A maximum is raised only when a score exceeds it by more than this, in log2 units. 2^8 times the
/// keys of a chunk is far from overflow, and almost no step after the first raises anything.
inline constexpr float kMaxSlack = 8.0f;

/// Statistics of one thread's rows of a Tile. A maximum is a score, or -FLT_MAX before the first
/// finite one; a row with a NaN or +inf score ends with a NaN sum.
template <typename Tile>
struct RowStatistics {
  static constexpr int kThreadRows = Tile::kThreadRows;
  float max[kThreadRows];
  float sum[kThreadRows];

  __device__ RowStatistics() {
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
      max[i] = -kNoRow;
      sum[i] = 0;
    }
  }

  __device__ void add(Tile& scores, float scale_log2) {
    float growth = -INFINITY;
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
      const float largest = fmaxf(scores.at(i, 0), scores.at(i, 1));
      growth = fmaxf(growth, fmaf(largest, scale_log2, -max[i]));
    }
    if (__any_sync(kFullWarp, growth > kMaxSlack)) raise(scores, scale_log2);
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        sum[i] += arch::exp2_approx(fmaf(scores.at(i, j), scale_log2, -max[i]));
      }
    }
  }

  /// Combines the 8 threads that hold other keys of the same rows; all of them get the result.
  __device__ void combine() {
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
      for (int lanes = 4; lanes < 32; lanes *= 2) {
        const float other_max = __shfl_xor_sync(kFullWarp, max[i], lanes);
        const float other_sum = __shfl_xor_sync(kFullWarp, sum[i], lanes);
        const float new_max = fmaxf(max[i], other_max);
        sum[i] = sum[i] * arch::exp2_approx(max[i] - new_max) +
                 other_sum * arch::exp2_approx(other_max - new_max);
        max[i] = new_max;
      }
    }
  }

 private:
  __device__ void raise(Tile& scores, float scale_log2) {
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
      const float new_max = fmaxf(scores.at(i, 0), scores.at(i, 1)) * scale_log2;
      if (new_max > max[i] + kMaxSlack) {
        sum[i] *= arch::exp2_approx(max[i] - new_max);
        max[i] = new_max;
      }
    }
  }
};

// ---- Sums of probabilities ----------------------------------------------------------------------

/// Turns S into P, in place.
template <typename Tile>
struct Probabilities {
  static constexpr int kThreadRows = Tile::kThreadRows;
  float offset[kThreadRows];
  bool all_present;  // Every row of the warp counts.

  __device__ explicit Probabilities(const float* row_offset) {
    bool present = true;
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
      offset[i] = row_offset[row_of(i)];
      present = present && offset[i] != kNoRow;
    }
    all_present = __all_sync(kFullWarp, present);
  }

  __device__ void take(Tile& scores, float scale_log2) const {
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        scores.at(i, j) = arch::exp2_approx(fmaf(scores.at(i, j), scale_log2, -offset[i]));
      }
    }
    if (all_present) return;
    // 2^-FLT_MAX is 0, but a NaN or infinity of a row that does not count would spread.
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
      if (offset[i] == kNoRow) scores.at(i, 0) = scores.at(i, 1) = 0;
    }
  }
};

/// The column of a step whose sum the lane holds.
__device__ inline int lane_column() { return lane_key() + lane_index() % 2 * 8; }

/// The sum over the warp's rows of the step's column lane_column(). Lanes 4 g + 2 and 4 g + 3 hold
/// the same as lanes 4 g and 4 g + 1.
template <typename Tile>
__device__ inline float add_columns(Tile& p) {
  float sum[2];
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    float pair[Tile::kRowTiles];
#pragma unroll
    for (int n = 0; n < Tile::kRowTiles; ++n) pair[n] = p.at(2 * n, j) + p.at(2 * n + 1, j);
#pragma unroll
    for (int step = 1; step < Tile::kRowTiles; step *= 2) {
#pragma unroll
      for (int n = 0; n < Tile::kRowTiles; n += 2 * step) pair[n] += pair[n + step];
    }
    sum[j] = pair[0];
  }
  // The four lanes of a key: even ones take key g, odd ones key g + 8, then both of a kind add up.
  const bool odd = lane_index() % 2 != 0;
  const float other = __shfl_xor_sync(kFullWarp, odd ? sum[0] : sum[1], 1);
  const float total = (odd ? sum[1] : sum[0]) + other;
  return total + __shfl_xor_sync(kFullWarp, total, 2);
}

/// True if the lane should store its sum; other lanes hold a copy.
__device__ inline bool has_column() { return lane_index() % 4 < 2; }

/// A thread's part of an 8x8 block: elements (g, 2t) and (g, 2t + 1).
struct alignas(8) Pair {
  float low;
  float high;
};

/// Keys that complete 32 distances.
inline constexpr int kHalfKeys = 32;

/// Row pitch of DiagonalBlocks' shared memory, in floats, and its size. 8-byte aligned.
inline constexpr int kSkewPitch = kHalfKeys + 8;
inline constexpr int kSkewSize = 8 * kSkewPitch;

/// Sums of a warp's P over diagonals.
///
/// Cut S^T into 8x8 blocks; b counts key blocks and n the warp's R row tiles. A score of key g of
/// block b and row c of tile n has distance 8 (n - b) + c - g from the warp's first key to its
/// first row. So blocks of equal n - b add up element by element, in the registers where the
/// product left them, and each key block completes one such sum. Four of these sums and the last
/// one of the previous four give 32 finished distances, by way of shared memory: they are laid out
/// as skew[g][8 (n - b) + c], and distance x is the sum of skew[g][x + g] over g. Both accesses are
/// free of bank conflicts.
///
///     half tile h (32 keys)    distances 8 R - 32 (h + 1) + [0, 32) from first key to first row
template <typename Tile>
class DiagonalBlocks {
 public:
  __device__ explicit DiagonalBlocks(float* skew)
      : pairs_(skew + lane_key() * kSkewPitch + lane_row()), diagonal_(skew + lane_index()) {
    store(4, {});
  }

  /// Adds key block `b` of a half tile, the step's keys j; stores and returns the sum that it
  /// completes.
  __device__ Pair add(Tile& p, int j, int b) {
    const Pair done = plus(block_[kLast], p, kLast + 1, j);
#pragma unroll
    for (int n = kLast; n > 0; --n) block_[n] = plus(block_[n - 1], p, n, j);
    block_[0] = {p.at(0, j), p.at(1, j)};
    store(3 - b, done);
    return done;
  }

  /// After four key blocks, the last of which completed `done`: returns the lane's finished
  /// distance.
  __device__ float finish_half(Pair done) {
    __syncwarp();  // The blocks are stored.
    float sum = diagonal_[0];
#pragma unroll
    for (int g = 1; g < 8; ++g) sum += diagonal_[g * (kSkewPitch + 1)];
    __syncwarp();  // The blocks are read.
    store(4, done);
    return sum;
  }

  /// finish_half() of a half tile of zeros.
  __device__ float finish_zeros() {
    Pair done;
#pragma unroll
    for (int b = 0; b < 4; ++b) {
      done = block_[kLast];
#pragma unroll
      for (int n = kLast; n > 0; --n) block_[n] = block_[n - 1];
      block_[0] = {};
      store(3 - b, done);
    }
    return finish_half(done);
  }

 private:
  static constexpr int kLast = Tile::kRowTiles - 2;

  __device__ static Pair plus(Pair sum, Tile& p, int n, int j) {
    return {sum.low + p.at(2 * n, j), sum.high + p.at(2 * n + 1, j)};
  }

  __device__ void store(int place, Pair pair) {
    *reinterpret_cast<Pair*>(pairs_ + 8 * place) = pair;
  }

  float* pairs_;
  const float* diagonal_;
  Pair block_[kLast + 1] = {};
};

}  // namespace minference::device
