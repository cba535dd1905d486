// Softmax statistics of rows whose scores come 16 keys at a time: each row's maximum and sum of
// exponentials. A thread keeps those of its rows over the keys it happens to hold; the 8 threads of
// a row meet at the end.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "cuda/arch/math.h"
#include "cuda/device/score_tile.h"

namespace minference::device {

/// A maximum is raised only when a score exceeds it by more than this, in log2 units: 2^8 times the
/// keys of a chunk is far from overflow, and almost no step after the first raises anything.
inline constexpr float kMaxSlack = 8.0f;

/// Of one thread's rows of a Tile. A maximum is a score, or -FLT_MAX before the first finite one; a
/// row with a NaN or +inf score ends with a NaN sum.
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

  /// Combines the 8 threads that hold other keys of the same rows; all get the result.
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

}  // namespace minference::device
