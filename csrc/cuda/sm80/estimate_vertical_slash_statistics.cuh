// Stage 1 of vertical-slash, pass 1 of 2 over K: each estimating row's maximum and sum of
// exponentials, per chunk of keys.
//
// A warp holds 32 rows of one head and sees all keys of the chunk.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/device/row_statistics.h"
#include "cuda/sm80/estimate_vertical_slash_traits.h"

namespace minference::sm80 {

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
  device::RowStatistics<device::ScoreTile> rows;

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
