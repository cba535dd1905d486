// Stage 1 of vertical-slash on sm90: the two passes over K.
//
//     row_statistics    each estimating row's maximum and sum of exponentials, per chunk of keys
//     score_sums        the probabilities, of which only the sums over columns and over diagonals
//                       are kept
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "cuda/arch/launch.h"
#include "cuda/device/score_statistics.h"
#include "cuda/sm90/estimate_vertical_slash_scores.h"
#include "cuda/sm90/kernels.h"
#include "cuda/tma/tensor_maps.h"

namespace minference::sm90::vertical_slash {

// ---- Pass 1 -------------------------------------------------------------------------------------

/// Shared memory of a warpgroup.
template <typename Traits>
struct WarpgroupStatistics {
  typename Traits::Queries queries;
  // Of each warp's range of keys. The warp writes it; the warpgroup reads it after the named
  // barrier.
  alignas(1024) float max[kWarpgroupWarps][kWarpgroupHeads * kBlock];
  float sum[kWarpgroupWarps][kWarpgroupHeads * kBlock];
};

/// Joins the four warps' ranges, in their order, and stores the chunk's statistics: one row per
/// thread.
template <typename Traits>
__device__ inline void store_statistics(const cuda::ScoreArgs& args, const cuda::ScoreGroup& group,
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
    row_statistics_sm90_kernel(const __grid_constant__ cuda::ScoreArgs args,
                               const __grid_constant__ CUtensorMap key_map) {
  auto& buffers = arch::shared_storage<typename Traits::Buffers>();
  const cuda::ScoreGroup& group = args.groups[blockIdx.y];
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

  // 3. Statistics of the chunk.
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

// ---- Pass 2 -------------------------------------------------------------------------------------

/// Shared memory of a warp and head.
///
///     what           written by    read by           ordered by
///     skew           the warp      the warp          __syncwarp
///     first, left    the warp      the warpgroup     the named barrier at the end
struct RangeSums {
  alignas(8) float skew[device::kSkewSize];
  // 64 distances, ascending, that the end of one range and the beginning of the next contribute to.
  float first[kBlock];
  float left[kBlock];
};

/// Shared memory of a warpgroup.
template <typename Traits>
struct WarpgroupSums {
  typename Traits::Queries queries;
  alignas(1024) RangeSums of[kWarpgroupHeads][kWarpgroupWarps];
};

/// A warp's sums of one head's P over its range. Half h (32 keys) finishes the distances 32 (1 - h)
/// + [0, 32) from the range's first key to the head's first row; two halves of zeros end it.
class HeadSums {
 public:
  __device__ HeadSums(const cuda::ScoreArgs& args, const KeyRanges& ranges, int warp,
                      int32_t target, RangeSums& sums)
      : args_(args),
        first_key_(ranges.first_of(warp)),
        num_halves_(ranges.num_keys / device::kHalfKeys),
        row_(int64_t{target} * args.seqlen_k),
        sums_(sums),
        has_range_before_(warp != 0),
        p_(args.row_offset + int64_t{target} * kBlock),
        blocks_(sums.skew) {}

  /// Adds the tile's 16 keys; a half has two such tiles: `step` is 0 or 1.
  __device__ void add(HeadScores& scores, int32_t tile, int step) {
    const int32_t key = first_key_ + tile * kStepKeys;
    const int32_t ahead = key - args_.first_position();
    if (ahead + kStepKeys > 1) device::mask_causal(scores, ahead);
    p_.take(scores, args_.scale_log2);
    const float column = device::add_columns(scores);
    const int32_t lane_key = key + device::lane_column();
    if (device::has_column() && lane_key < args_.seqlen_k) args_.vertical[row_ + lane_key] = column;
    blocks_.add(scores, 0, 2 * step);
    const device::Pair done = blocks_.add(scores, 1, 2 * step + 1);
    if (step == 1) store_half(tile / 2, blocks_.finish_half(done));
  }

  /// Called after the last tile.
  __device__ void finish() {
    store_half(num_halves_, blocks_.finish_zeros());
    store_half(num_halves_ + 1, blocks_.finish_zeros());
  }

 private:
  __device__ void store_half(int32_t half, float sum) {
    const int32_t i = (1 - half) * device::kHalfKeys + device::lane_index();
    if (half >= num_halves_) {
      sums_.left[i + num_halves_ * device::kHalfKeys] = sum;
    } else if (half < 2 && has_range_before_) {
      sums_.first[i] = sum;
    } else {
      const int32_t distance = args_.first_position() - first_key_ + i;
      if (distance >= 0 && distance < args_.seqlen_k) args_.slash[row_ + distance] = sum;
    }
  }

  const cuda::ScoreArgs& args_;
  int32_t first_key_;
  int32_t num_halves_;
  int64_t row_;  // Row of vertical and slash.
  RangeSums& sums_;
  bool has_range_before_;
  device::Probabilities<HeadScores> p_;
  device::DiagonalBlocks<HeadScores> blocks_;
};

/// Distances at the ends of a head's four ranges. Those of the last range belong to the next chunk
/// too.
__device__ inline void store_edges(const cuda::ScoreArgs& args, const KeyRanges& ranges, int thread,
                                   int32_t target, const RangeSums (&sums)[kWarpgroupWarps]) {
  const int i = thread % kBlock;
#pragma unroll
  for (int step = 0; step < kWarpgroupWarps; step += device::kWarpgroupThreads / kBlock) {
    const int range = step + thread / kBlock;
    float sum = sums[range].left[i];
    if (range + 1 < kWarpgroupWarps) {
      sum += sums[range + 1].first[i];
    } else if (ranges.chunk + 1 < args.num_chunks) {
      args.overlap[args.chunk_rows(target, ranges.chunk) + i] = sum;
      continue;
    }
    const int32_t distance = args.first_position() - ranges.first_of(range + 1) + i;
    if (distance >= 0 && distance < args.seqlen_k) {
      args.slash[int64_t{target} * args.seqlen_k + distance] = sum;
    }
  }
}

template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, 1)
    score_sums_sm90_kernel(const __grid_constant__ cuda::ScoreArgs args,
                           const __grid_constant__ CUtensorMap key_map) {
  auto& buffers = arch::shared_storage<typename Traits::Buffers>();
  const cuda::ScoreGroup& group = args.groups[blockIdx.y];
  const KeyRanges ranges(args);
  initialize_ring<Traits>(buffers, group.num_heads);
  if (is_producer()) return produce_keys<Traits>(buffers, key_map, args, group, ranges);
  arch::setmaxnreg_inc<Traits::kConsumerRegisters>();
  const Consumer consumer(group);
  if (consumer.num_heads <= 0) return;

  // 1. Queries.
  auto& own = own_storage<WarpgroupSums<Traits>>(buffers, consumer.warpgroup);
  load_queries<Traits>(own.queries, args, group, consumer);

  // 2. Keys.
  const auto sums_of = [&](int head) {
    return HeadSums(args, ranges, consumer.warp, group.first_target + consumer.slot_of(head),
                    own.of[head][consumer.warp]);
  };
  HeadSums sums[kWarpgroupHeads] = {sums_of(0), sums_of(1)};
  ScoreStream<Traits> stream(buffers, own.queries);
  take_scores(stream, ranges.num_tiles, [&](WarpScores& scores, int32_t tile, int step) {
#pragma unroll
    for (int head = 0; head < kWarpgroupHeads; ++head) {
      if (head >= consumer.num_heads) break;
      HeadScores head_scores = scores.of(head);
      sums[head].add(head_scores, tile, step);
    }
  });

  // 3. Ends of ranges.
#pragma unroll
  for (int head = 0; head < kWarpgroupHeads; ++head) {
    if (head < consumer.num_heads) sums[head].finish();
  }
  arch::named_barrier_sync(1 + consumer.warpgroup, device::kWarpgroupThreads);
  for (int head = 0; head < consumer.num_heads; ++head) {
    store_edges(args, ranges, consumer.thread, group.first_target + consumer.slot_of(head),
                own.of[head]);
  }
}

// ---- Host ---------------------------------------------------------------------------------------

inline CUtensorMap key_map(const Shape& shape, const KvRows& k) {
  return tma::tensor_map(k.tensor, key_sizes(shape),
                         {.dims = kPanelDims, .swizzle = arch::Swizzle::k128B, .rows = kStepKeys});
}

template <typename Traits, template <typename> typename Own>
arch::LaunchShape launch_shape(dim3 grid, int num_heads) {
  const int threads = (num_warpgroups(num_heads) + 1) * device::kWarpgroupThreads;
  return {.grid = grid,
          .block = dim3(static_cast<unsigned>(threads)),
          .shared_bytes = score_shared_bytes<Traits, Own<Traits>>(num_heads),
          .max_shared_bytes = score_shared_bytes<Traits, Own<Traits>>(Traits::kGroupHeads)};
}

template <typename Traits>
void launch_row_statistics(const Shape& shape, const cuda::ScoreArgs& args, dim3 grid,
                           int num_heads, cudaStream_t stream) {
  arch::launch("row_statistics", &row_statistics_sm90_kernel<Traits>,
               launch_shape<Traits, WarpgroupStatistics>(grid, num_heads), stream, args,
               key_map(shape, args.k));
}

template <typename Traits>
void launch_score_sums(const Shape& shape, const cuda::ScoreArgs& args, dim3 grid, int num_heads,
                       cudaStream_t stream) {
  arch::launch("score_sums", &score_sums_sm90_kernel<Traits>,
               launch_shape<Traits, WarpgroupSums>(grid, num_heads), stream, args,
               key_map(shape, args.k));
}

}  // namespace minference::sm90::vertical_slash

namespace minference::sm90 {

template <typename Element, int kHeadDim>
cuda::ScoreKernels score_kernels() {
  using Traits = vertical_slash::VerticalSlashTraits<Element, kHeadDim>;
  static_assert(Traits::kGroupHeads <= cuda::kMaxGroupHeads);
  return {.row_statistics = &vertical_slash::launch_row_statistics<Traits>,
          .score_sums = &vertical_slash::launch_score_sums<Traits>,
          .max_heads = Traits::kGroupHeads,
          .key_step = vertical_slash::KeyRanges::kChunkStep,
          .blocks = 528};  // Four rounds of one on each of 132 multiprocessors.
}

}  // namespace minference::sm90
