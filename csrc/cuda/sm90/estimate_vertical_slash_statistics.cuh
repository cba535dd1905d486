// Stage 1 of vertical-slash on sm90, pass 1 of 2 over K: each estimating row's maximum and sum of
// exponentials, per chunk of keys.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "cuda/device/row_statistics.h"
#include "cuda/sm90/estimate_vertical_slash_scores.cuh"

namespace minference::sm90::vertical_slash {

/// Shared memory of a warpgroup.
template <typename Traits>
struct WarpgroupStatistics {
  typename Traits::Queries queries;
  // Of each warp's range of keys. By the warp; read by the warpgroup, behind the named barrier.
  alignas(1024) float max[kWarpgroupWarps][kWarpgroupHeads * kBlock];
  float sum[kWarpgroupWarps][kWarpgroupHeads * kBlock];
};

/// Joins the four warps' ranges, in their order, and stores the chunk's statistics: a row a thread.
template <typename Traits>
__device__ inline void store_statistics(const sm80::ScoreArgs& args, const sm80::ScoreGroup& group,
                                        const KeyRanges& ranges, const Consumer& consumer,
                                        const WarpgroupStatistics<Traits>& own) {
  static_assert(device::kWarpgroupThreads == kWarpgroupHeads * kBlock);
  const int row = consumer.thread;
  const int head = row / kBlock;
  if (head >= consumer.num_heads) return;
  float max = own.max[0][row];
#pragma unroll
  for (int warp = 1; warp < kWarpgroupWarps; ++warp) max = fmaxf(max, own.max[warp][row]);
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kWarpgroupWarps; ++warp) {
    sum += own.sum[warp][row] * arch::exp2_approx(own.max[warp][row] - max);
  }
  const int32_t target = group.first_target + consumer.slot_of(head);
  const int64_t i = args.chunk_rows(target, ranges.chunk) + row % kBlock;
  args.row_max[i] = max;
  args.row_sum[i] = sum;
}

template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, 1)
    row_statistics_sm90_kernel(const __grid_constant__ sm80::ScoreArgs args,
                               const __grid_constant__ CUtensorMap key_map) {
  auto& buffers = arch::shared_storage<typename Traits::Buffers>();
  const sm80::ScoreGroup& group = args.groups[blockIdx.y];
  const KeyRanges ranges(args);
  initialize_ring<Traits>(buffers, group.num_heads);
  if (is_producer()) return produce_keys<Traits>(buffers, key_map, args, group, ranges);
  arch::setmaxnreg_inc<Traits::kConsumerRegisters>();
  const Consumer consumer(group);
  if (consumer.num_heads <= 0) return;

  // 1. Queries.
  auto& own = own_storage<WarpgroupStatistics<Traits>>(buffers, consumer.warpgroup);
  load_queries<Traits>(own.queries, args, group, consumer);

  // 2. Keys.
  device::RowStatistics<HeadScores> rows[kWarpgroupHeads];
  const int32_t first_ahead = ranges.first_of(consumer.warp) - args.first_position();
  ScoreStream<Traits> stream(buffers, own.queries);
  take_scores(stream, ranges.num_tiles, [&](WarpScores& scores, int32_t tile, int) {
    const int32_t ahead = first_ahead + tile * kStepKeys;
#pragma unroll
    for (int head = 0; head < kWarpgroupHeads; ++head) {
      if (head >= consumer.num_heads) break;
      HeadScores head_scores = scores.of(head);
      if (ahead + kStepKeys > 1) device::mask_causal(head_scores, ahead);
      rows[head].add(head_scores, args.scale_log2);
    }
  });

  // 3. The chunk's.
#pragma unroll
  for (int head = 0; head < kWarpgroupHeads; ++head) {
    rows[head].combine();
    if (device::lane_key() != 0) continue;
#pragma unroll
    for (int i = 0; i < HeadScores::kThreadRows; ++i) {
      const int row = head * kBlock + device::row_of(i);
      own.max[consumer.warp][row] = rows[head].max[i];
      own.sum[consumer.warp][row] = rows[head].sum[i];
    }
  }
  arch::named_barrier_sync(1 + consumer.warpgroup, device::kWarpgroupThreads);
  store_statistics(args, group, ranges, consumer, own);
}

}  // namespace minference::sm90::vertical_slash
