// Stage 1 of vertical-slash on sm80: the two passes over K.
//
//     row_statistics    each estimating row's maximum and sum of exponentials, per chunk of keys
//     score_sums        the probabilities, of which only the sums over columns and over diagonals
//                       are kept
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/arch/launch.h"
#include "cuda/arch/shared.h"
#include "cuda/common/estimate_vertical_slash.h"
#include "cuda/device/key_stream.h"
#include "cuda/device/score_statistics.h"
#include "cuda/device/score_tile.h"
#include "cuda/sm80/kernels.h"

namespace minference::sm80 {

// ---- Traits -------------------------------------------------------------------------------------

using cuda::ScoreArgs;
using cuda::ScoreGroup;

/// Query heads that may share one reading of K, for a head_dim padded to kHeadDim. Two warps each:
/// 512 threads leave 128 registers a thread, of which queries take kHeadDim / 2.
constexpr int heads_per_group(int head_dim) { return head_dim <= 128 ? 8 : 4; }
static_assert(heads_per_group(0) <= cuda::kMaxGroupHeads);

/// The query heads of a KV head are computed together, so K is read twice in all; nothing of size
/// heads x 64 x seqlen is stored. With 4 heads at head_dim 128 a pass makes 2 * 4 * 64 * 128 FLOP
/// from the 256 bytes of a key: 256 FLOP/byte. An A100 balances at 156 (312 TFLOP/s, 2.0 TB/s), an
/// H200 at some 125 (mma.sync reaches about 60 % of its 989 TFLOP/s; 4.8 TB/s): tensor-bound.
/// Without GQA it is 64, memory-bound. A warp's 16 keys are 32 mma.sync (256 cycles of an A100's
/// tensor core, shared by 4 warps) and about 120 other instructions (1 cycle each of the same 4
/// warps' scheduler).
///
/// Blocks of 4 heads per multiprocessor (sm_80 86 89 90), 8 warps each:
///
///     head_dim    row_statistics    score_sums    bound by
///     64          2 2 2 2           2 2 2 2       registers
///     96          2 2 2 2           2 1 1 2       registers; shared memory on 86 and 89
///     128         2 1 1 2           2 1 1 2       registers; shared memory on 86 and 89
///     192, 256    1 1 1 1           1 1 1 1       registers: queries alone take 96, 128
///
/// A multiprocessor holds one block of 8 heads, with 16 warps.
template <typename Element_, int kHeadDim_>
struct VerticalSlashTraits {
  using Element = Element_;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kGroupHeads = heads_per_group(kHeadDim);
  static constexpr int kMaxThreads = kGroupHeads * kBlock;

  // 64 keys are 9 KiB (head_dim 64) to 33 KiB (256); score_sums takes 4.5 KiB more per head. Three
  // buffers keep two tiles in flight; at 256 they would pass the 99 KiB of sm_86.
  static constexpr int kStages = kHeadDim <= 192 ? 3 : 2;

  using Keys = device::KeyStream<Element, kHeadDim, kStages>;
  using Query = device::QueryFragments<Element, kHeadDim>;
};

/// What a block works on: grid (chunks, groups), 64 threads per head of the largest group.
struct ScoreBlock {
  int32_t chunk;
  int32_t first_key;
  int32_t num_tiles;

  __device__ explicit ScoreBlock(const ScoreArgs& args)
      : chunk(static_cast<int32_t>(blockIdx.x)), first_key(chunk * args.chunk_keys) {
    const int32_t left = args.seqlen_k - first_key;
    const int32_t num_keys = left < args.chunk_keys ? left : args.chunk_keys;
    num_tiles = (num_keys - 1) / kBlock + 1;
  }
};

/// What a warp works on: rows [first_row, first_row + 32) of the 64 of one target. Warps past the
/// group's heads only help to fetch keys.
struct ScoreWarp {
  int32_t slot;  // The head's index in the group.
  int32_t first_row;
  bool active;
  int32_t target;  // Counted from the wave's first.

  __device__ explicit ScoreWarp(const ScoreGroup& group)
      : slot(static_cast<int32_t>(threadIdx.x) / kBlock),
        first_row(static_cast<int32_t>(threadIdx.x) % kBlock / 32 * 32),
        active(slot < group.num_heads),
        target(group.first_target + slot) {}
};

template <typename Traits>
__device__ inline device::KeyHead<typename Traits::Element> key_head(const ScoreArgs& args,
                                                                     const ScoreGroup& group) {
  using Element = typename Traits::Element;
  const int32_t kv_head = group.heads[0] / args.heads_per_kv_head;
  return {.rows = args.k.head<Element>(args.sequences.at(group.batch), kv_head),
          .seqlen_k = args.seqlen_k,
          .head_dim = args.head_dim};
}

/// The warp's 32 of the last rows. Strides are multiples of 8 elements, and so whole words.
template <typename Traits>
__device__ inline void load_queries(typename Traits::Query& query, const ScoreArgs& args,
                                    const ScoreGroup& group, const ScoreWarp& warp) {
  const Sequence sequence = args.sequences.at(group.batch);
  const int64_t first_row = sequence.lengths.seqlen_q - args.last_q + warp.first_row;
  const auto rows = query_rows<typename Traits::Element>(args.q, sequence, group.heads[warp.slot]);
  query.load(reinterpret_cast<const uint32_t*>(rows.row(first_row)), rows.stride / 2,
             args.last_q - warp.first_row, args.head_dim, args.query_bits);
}

// ---- Pass 1 -------------------------------------------------------------------------------------

/// A warp holds 32 rows of one head and sees all keys of the chunk.
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

// ---- Pass 2 -------------------------------------------------------------------------------------

using device::kHalfKeys;
static_assert(kBlock == 2 * kHalfKeys);

/// Sums over one warp's rows: of a tile's 64 columns, and of 64 ascending distances.
struct TileSums {
  float columns[kBlock];
  float distances[kBlock];
};

/// Shared memory of one head's two warps, after the key buffers.
///
///     what          written by      read by         ordered by
///     skew[w]       warp w          warp w          __syncwarp
///     sums[p][w]    warp w, tile p  both, tile p+1  the barrier of KeyStream::wait; p = tile % 2
struct HeadSums {
  alignas(8) float skew[2][device::kSkewSize];
  TileSums sums[2][2];
};

/// A block has one HeadSums per head of the wave's largest group, after the Buffers, rather than
/// always 8: so without GQA, at head_dim 128, an SM of sm_90 holds 3 blocks instead of 2.
template <typename Traits>
constexpr std::size_t score_sums_shared_bytes(int num_heads) {
  return sizeof(typename Traits::Keys::Buffers) +
         static_cast<std::size_t>(num_heads) * sizeof(HeadSums);
}

template <typename Traits>
__device__ inline HeadSums& head_sums(typename Traits::Keys::Buffers& buffers, int slot) {
  static_assert(sizeof(buffers) % alignof(HeadSums) == 0);
  return *(reinterpret_cast<HeadSums*>(&buffers + 1) + slot);
}

/// One warp's sums of P, tile after tile. Counted from the chunk's first key to the head's first
/// row, half tile h completes distances 32 (w - h) + [0, 32) in the warp with rows 32 w. Half h of
/// the upper rows' warp has the same distances as half h - 1 of the lower rows'; each tile finishes
/// 64 distances of a head.
class WarpSums {
 public:
  __device__ WarpSums(const ScoreArgs& args, const ScoreWarp& warp, HeadSums& head)
      : p_(args.row_offset + int64_t{warp.target} * kBlock + warp.first_row),
        blocks_(head.skew[warp.first_row / kHalfKeys]),
        upper_(warp.first_row != 0) {}

  /// Half a tile of 64 keys. `ahead`: as in mask_causal().
  template <typename Traits>
  __device__ void add(const typename Traits::Keys::Tile& keys, const typename Traits::Query& query,
                      int half, int32_t ahead, float scale_log2, TileSums& sums) {
    device::Pair done;
#pragma unroll 1
    for (int step = 0; step < 2; ++step) {
      const int first = half * kHalfKeys + step * device::kStepKeys;
      device::ScoreTile scores = device::score_keys(keys, first, query);
      if (ahead + kBlock > 1) device::mask_causal(scores, ahead + first);
      p_.take(scores, scale_log2);
      const float column = device::add_columns(scores);
      if (device::has_column()) sums.columns[first + device::lane_column()] = column;
      blocks_.add(scores, 0, 2 * step);
      done = blocks_.add(scores, 1, 2 * step + 1);
    }
    store_half(half, blocks_.finish_half(done), sums);
  }

  /// The tile of zeros that ends a chunk.
  __device__ void finish(TileSums& sums) {
    store_half(0, blocks_.finish_zeros(), sums);
    store_half(1, 0, sums);
  }

 private:
  /// Lower rows store their sums one half later: then both warps' sums have the same distances.
  __device__ void store_half(int half, float sum, TileSums& sums) {
    sums.distances[(1 - half) * kHalfKeys + device::lane_index()] = upper_ ? sum : before_;
    before_ = sum;
  }

  device::Probabilities<device::ScoreTile> p_;
  device::DiagonalBlocks<device::ScoreTile> blocks_;
  bool upper_;
  float before_ = 0;  // Of the previous half.
};

/// Stores the sums that both warps of a head have made of tile `tile`. The tile past the last one
/// holds what remains at the chunk's end: distances that belong to the next chunk too.
__device__ inline void store_sums(const ScoreArgs& args, const ScoreBlock& block,
                                  const ScoreWarp& warp, const HeadSums& head, int32_t tile) {
  const TileSums& lower = head.sums[tile % 2][0];
  const TileSums& upper = head.sums[tile % 2][1];
  const int32_t i = static_cast<int32_t>(threadIdx.x) % kBlock;
  const float distance_sum = lower.distances[i] + upper.distances[i];
  if (tile == block.num_tiles && block.chunk + 1 < args.num_chunks) {
    args.overlap[args.chunk_rows(warp.target, block.chunk) + i] = distance_sum;
    return;
  }
  const int64_t row = int64_t{warp.target} * args.seqlen_k;
  if (tile < block.num_tiles) {
    const int32_t key = block.first_key + tile * kBlock;
    if (i < args.seqlen_k - key) args.vertical[row + key + i] = lower.columns[i] + upper.columns[i];
  }
  const int32_t distance = args.first_position() - block.first_key - tile * kBlock + i;
  if (distance >= 0 && distance < args.seqlen_k) args.slash[row + distance] = distance_sum;
}

template <typename Traits>
__global__ void __launch_bounds__(Traits::kMaxThreads)
    score_sums_kernel(const __grid_constant__ ScoreArgs args) {
  auto& buffers = arch::shared_storage<typename Traits::Keys::Buffers>();
  const ScoreGroup& group = args.groups[blockIdx.y];
  const ScoreBlock block(args);
  const ScoreWarp warp(group);

  typename Traits::Keys keys(buffers, key_head<Traits>(args, group), block.first_key,
                             block.num_tiles);
  if (!warp.active) {
    for (int32_t tile = 0; tile <= block.num_tiles + 1; ++tile) keys.wait(tile);
    return;
  }
  typename Traits::Query query;
  load_queries<Traits>(query, args, group, warp);
  HeadSums& head = head_sums<Traits>(buffers, warp.slot);
  WarpSums warp_sums(args, warp, head);

  for (int32_t tile = 0; tile < block.num_tiles; ++tile) {
    const auto& key_tile = keys.wait(tile);
    if (tile > 0) store_sums(args, block, warp, head, tile - 1);
    TileSums& sums = head.sums[tile % 2][warp.first_row / kHalfKeys];
    const int32_t ahead =
        block.first_key + tile * kBlock - (args.first_position() + warp.first_row);
#pragma unroll 1
    for (int half = 0; half < 2; ++half) {
      warp_sums.template add<Traits>(key_tile, query, half, ahead, args.scale_log2, sums);
    }
  }

  keys.wait(block.num_tiles);
  store_sums(args, block, warp, head, block.num_tiles - 1);
  warp_sums.finish(head.sums[block.num_tiles % 2][warp.first_row / kHalfKeys]);
  keys.wait(block.num_tiles + 1);
  store_sums(args, block, warp, head, block.num_tiles);
}

// ---- Host ---------------------------------------------------------------------------------------

template <typename Traits>
void launch_row_statistics(const Shape&, const ScoreArgs& args, dim3 grid, int num_heads,
                           cudaStream_t stream) {
  arch::launch("row_statistics", &row_statistics_kernel<Traits>,
               {grid, dim3(static_cast<unsigned>(num_heads * kBlock)),
                sizeof(typename Traits::Keys::Buffers)},
               stream, args);
}

template <typename Traits>
void launch_score_sums(const Shape&, const ScoreArgs& args, dim3 grid, int num_heads,
                       cudaStream_t stream) {
  arch::launch("score_sums", &score_sums_kernel<Traits>,
               {grid, dim3(static_cast<unsigned>(num_heads * kBlock)),
                score_sums_shared_bytes<Traits>(num_heads),
                score_sums_shared_bytes<Traits>(Traits::kGroupHeads)},
               stream, args);
}

template <typename Element, int kHeadDim>
cuda::ScoreKernels score_kernels() {
  using Traits = VerticalSlashTraits<Element, kHeadDim>;
  return {.row_statistics = &launch_row_statistics<Traits>,
          .score_sums = &launch_score_sums<Traits>,
          .max_heads = Traits::kGroupHeads,
          .key_step = kBlock,
          .blocks = 1024};  // Four rounds of 2 on each of 132 multiprocessors.
}

}  // namespace minference::sm80
