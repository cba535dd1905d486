// Stage 1 of vertical-slash, pass 1 of 2 over K: each estimating row's maximum and sum of
// exponentials, per chunk of keys.
//
// A warp holds 32 rows of one head and sees all keys of the chunk. Each thread keeps the statistics
// of its 8 rows over the keys it happens to hold; the 8 threads of a row meet at the end.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "cuda/arch/math.h"
#include "cuda/sm80/estimate_vertical_slash_traits.h"

namespace minference::sm80 {

/// A maximum is raised only when a score exceeds it by more than this, in log2 units: 2^8 times the
/// keys of a chunk is far from overflow, and almost no step after the first raises anything.
inline constexpr float kMaxSlack = 8.0f;

/// Of one thread's rows. row_max is a score, or -FLT_MAX before the first finite one; a row with a
/// NaN or +inf score ends with a NaN sum.
struct RowStatistics {
  float max[device::kThreadRows];
  float sum[device::kThreadRows];

  __device__ RowStatistics() {
#pragma unroll
    for (int i = 0; i < device::kThreadRows; ++i) {
      max[i] = -kNoRow;
      sum[i] = 0;
    }
  }

  __device__ void add(device::ScoreTile& scores, float scale_log2) {
    float growth = -INFINITY;
#pragma unroll
    for (int i = 0; i < device::kThreadRows; ++i) {
      const float largest = fmaxf(scores.at(i, 0), scores.at(i, 1));
      growth = fmaxf(growth, fmaf(largest, scale_log2, -max[i]));
    }
    if (__any_sync(device::kFullWarp, growth > kMaxSlack)) raise(scores, scale_log2);
#pragma unroll
    for (int i = 0; i < device::kThreadRows; ++i) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        sum[i] += arch::exp2_approx(fmaf(scores.at(i, j), scale_log2, -max[i]));
      }
    }
  }

  /// Combines the 8 threads that hold other keys of the same rows; all get the result.
  __device__ void combine() {
#pragma unroll
    for (int i = 0; i < device::kThreadRows; ++i) {
      for (int lanes = 4; lanes < 32; lanes *= 2) {
        const float other_max = __shfl_xor_sync(device::kFullWarp, max[i], lanes);
        const float other_sum = __shfl_xor_sync(device::kFullWarp, sum[i], lanes);
        const float new_max = fmaxf(max[i], other_max);
        sum[i] = sum[i] * arch::exp2_approx(max[i] - new_max) +
                 other_sum * arch::exp2_approx(other_max - new_max);
        max[i] = new_max;
      }
    }
  }

 private:
  __device__ void raise(device::ScoreTile& scores, float scale_log2) {
#pragma unroll
    for (int i = 0; i < device::kThreadRows; ++i) {
      const float new_max = fmaxf(scores.at(i, 0), scores.at(i, 1)) * scale_log2;
      if (new_max > max[i] + kMaxSlack) {
        sum[i] *= arch::exp2_approx(max[i] - new_max);
        max[i] = new_max;
      }
    }
  }
};

template <typename Traits>
__global__ void __launch_bounds__(Traits::kMaxThreads)
    row_statistics_kernel(const __grid_constant__ ScoreArgs args) {
  auto& buffers = arch::shared_storage<typename Traits::Keys::Buffers>();
  const ScoreGroup& group = args.groups[blockIdx.y];
  const ScoreBlock block(args);
  const ScoreWarp warp(group);

  typename Traits::Keys keys(buffers, key_head<Traits>(args, group), block.first_key,
                             block.num_tiles);
  typename Traits::Query query;
  if (warp.active) load_queries<Traits>(query, args, group, warp);
  RowStatistics rows;

  for (int32_t tile = 0; tile < block.num_tiles; ++tile) {
    const auto& key_tile = keys.wait(tile);
    if (!warp.active) continue;
    const int32_t ahead =
        block.first_key + tile * kBlock - (args.first_position() + warp.first_row);
    const bool masked = ahead + kBlock - 1 > 0;
#pragma unroll 1
    for (int first = 0; first < kBlock; first += device::kStepKeys) {
      device::ScoreTile scores = device::score_keys(key_tile, first, query);
      if (masked) device::mask_causal(scores, ahead + first);
      rows.add(scores, args.scale_log2);
    }
  }

  if (!warp.active) return;
  rows.combine();
  if (device::lane_key() != 0) return;
  const int64_t first = args.chunk_rows(warp.target, block.chunk) + warp.first_row;
#pragma unroll
  for (int i = 0; i < device::kThreadRows; ++i) {
    args.row_max[first + device::row_of(i)] = rows.max[i];
    args.row_sum[first + device::row_of(i)] = rows.sum[i];
  }
}

}  // namespace minference::sm80
