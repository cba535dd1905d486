// Stage 1 of vertical-slash on sm80: what its kernels share: tile shape, thread layout.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/common/estimate_vertical_slash.h"
#include "cuda/device/key_stream.h"
#include "cuda/device/score_tile.h"

namespace minference::sm80 {

using cuda::ScoreArgs;
using cuda::ScoreGroup;

/// Query heads that may share one reading of K, for a head_dim padded to kHeadDim. Two warps each:
/// 512 threads leave 128 registers a thread, of which queries take kHeadDim / 2.
constexpr int heads_per_group(int head_dim) { return head_dim <= 128 ? 8 : 4; }
static_assert(heads_per_group(0) <= cuda::kMaxGroupHeads);

/// The query heads of a KV head go together, so K is read twice in all; nothing of size heads x 64
/// x seqlen is stored. With 4 heads at head_dim 128 a pass makes 2 * 4 * 64 * 128 FLOP of the 256
/// bytes of a key: 256 FLOP/byte. An A100 balances at 156 (312 TFLOP/s, 2.0 TB/s), an H200 at some
/// 125 (mma.sync reaches about 60 % of its 989 TFLOP/s; 4.8 TB/s): tensor-bound. Without GQA it is
/// 64, bound by memory. A warp's 16 keys are 32 mma.sync (256 cycles of an A100's tensor core,
/// shared by 4 warps) and about 120 other instructions (1 cycle each of the same 4 warps'
/// scheduler).
///
/// Blocks of 4 heads per multiprocessor (sm_80 86 89 90), 8 warps each:
///
///     head_dim    row_statistics    score_sums    bound by
///     64          2 2 2 2           2 2 2 2       registers
///     96          2 2 2 2           2 1 1 2       registers; shared memory on 86 and 89
///     128         2 1 1 2           2 1 1 2       registers; shared memory on 86 and 89
///     192, 256    1 1 1 1           1 1 1 1       registers: queries alone take 96, 128
///
/// Blocks of 8 heads come once, with 16 warps.
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
  int32_t slot;  // Of the head in the group.
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
__device__ inline device::KeyHead key_head(const ScoreArgs& args, const ScoreGroup& group) {
  const int32_t kv_head = group.heads[0] / args.heads_per_kv_head;
  return {.rows = args.k.head(args.sequences.at(group.batch), kv_head,
                              sizeof(typename Traits::Element)),
          .seqlen_k = args.seqlen_k,
          .head_dim = args.head_dim};
}

/// The warp's 32 of the last rows. Strides are multiples of 8 elements: words of two.
template <typename Traits>
__device__ inline void load_queries(typename Traits::Query& query, const ScoreArgs& args,
                                    const ScoreGroup& group, const ScoreWarp& warp) {
  const int64_t first_row = args.seqlen_q - args.last_q + warp.first_row;
  const HeadRows rows = query_rows(args.q, args.sequences.at(group.batch), group.heads[warp.slot],
                                   sizeof(typename Traits::Element));
  query.load(reinterpret_cast<const uint32_t*>(rows.row(first_row)), args.q.token_stride / 2,
             args.last_q - warp.first_row, args.head_dim, args.query_bits);
}

}  // namespace minference::sm80
