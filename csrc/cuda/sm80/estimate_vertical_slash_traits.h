// Stage 1 of vertical-slash on sm80: what its kernels share: arguments, tile shape, thread layout.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/backend.h"
#include "cuda/device/key_stream.h"
#include "cuda/device/query_scale.h"
#include "cuda/device/score_tile.h"

namespace minference::sm80 {

/// Query heads that may share one reading of K, for a head_dim padded to kHeadDim. Two warps each:
/// 512 threads leave 128 registers a thread, of which queries take kHeadDim / 2.
constexpr int heads_per_group(int head_dim) { return head_dim <= 128 ? 8 : 4; }
inline constexpr int kMaxGroupHeads = heads_per_group(0);

/// Targets of one KV head that are estimated together.
struct ScoreGroup {
  int32_t batch;
  int32_t first_target;  // Counted from the wave's first.
  int32_t num_heads;
  int32_t heads[kMaxGroupHeads];  // Query heads.
};

/// Arguments of the kernels for one wave of targets, whose memory they share. Chunks of
/// `chunk_keys` keys, a multiple of 64; the last one is shorter.
struct ScoreArgs {
  ConstTokens q;
  ConstTokens k;
  int32_t seqlen_q;
  int32_t seqlen_k;
  int32_t head_dim;
  int32_t heads_per_kv_head;
  int32_t last_q;
  int32_t chunk_keys;
  int32_t num_chunks;
  float scale_log2;
  device::QueryBits query_bits;

  const ScoreGroup* groups;
  float* row_max;     // [targets][chunks][64], log2 units.
  float* row_sum;     // [targets][chunks][64], of 2^(score - row_max).
  float* row_offset;  // [targets][64]: P = 2^(score - row_offset); kNoRow: P = 0.
  float* overlap;     // [targets][chunks][64]: a chunk's sums that the next chunk's add to.
  float* vertical;    // [targets][seqlen_k]
  float* slash;       // [targets][seqlen_k]

  /// Position of the first estimating row.
  MINF_HOST_DEVICE int32_t first_position() const { return seqlen_k - last_q; }

  /// Where the 64 values of a target's chunk begin in row_max, row_sum and overlap.
  MINF_HOST_DEVICE int64_t chunk_rows(int32_t target, int32_t chunk) const {
    return (int64_t{target} * num_chunks + chunk) * kBlock;
  }
};

using device::kNoRow;

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
__device__ inline device::KeyHead<typename Traits::Element> key_head(const ScoreArgs& args,
                                                                     const ScoreGroup& group) {
  const int64_t kv_head = group.heads[0] / args.heads_per_kv_head;
  return {.keys = static_cast<const typename Traits::Element*>(args.k.data) +
                  group.batch * args.k.batch_stride + kv_head * args.k.head_stride,
          .token_stride = args.k.token_stride,
          .seqlen_k = args.seqlen_k,
          .head_dim = args.head_dim};
}

/// The warp's 32 of the last rows. Strides are multiples of 8 elements: words of two.
template <typename Traits>
__device__ inline void load_queries(typename Traits::Query& query, const ScoreArgs& args,
                                    const ScoreGroup& group, const ScoreWarp& warp) {
  const int64_t first_row = args.seqlen_q - args.last_q + warp.first_row;
  const int64_t offset = group.batch * args.q.batch_stride +
                         group.heads[warp.slot] * args.q.head_stride +
                         first_row * args.q.token_stride;
  query.load(static_cast<const uint32_t*>(args.q.data) + offset / 2, args.q.token_stride / 2,
             args.last_q - warp.first_row, args.head_dim, args.query_bits);
}

}  // namespace minference::sm80
