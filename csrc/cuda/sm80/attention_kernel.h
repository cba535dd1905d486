// Stage 3 on sm80: exact softmax attention over the tiles that each row block attends, all patterns
// and heads in one launch. The kernel knows tiles; which, is core/key_tiles.h's to say.
//
// Blocks are persistent: each takes items from the work table, longest first, one fetched while
// the one before is computed. An item is a row tile of one head, or, in small calls, a part of its
// keys (AttentionParams::num_splits).
//
// Source: FlashAttention-2 (arXiv:2307.08691): Q in place, P in registers, K and V streamed by
// cp.async; MInference (arXiv:2407.02490), Appendix C.4, for the sparse sets.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/shared.h"
#include "cuda/sm80/attention_finish.h"
#include "cuda/sm80/attention_load.h"
#include "cuda/sm80/attention_nonfinite.h"
#include "cuda/sm80/attention_softmax.h"
#include "cuda/sm80/attention_traits.h"

namespace minference::sm80 {

/// What a block computes at a time.
struct AttentionItem {
  int32_t head_idx;  // batch * num_heads_q + query head.
  int32_t split;
  RowTile tile;

  /// False where the row block belongs to the item of the one before it. Such entries are the
  /// table's last.
  __device__ bool load(const AttentionParams& params, int64_t item) {
    const WorkItem entry = params.table.items[item / params.num_splits];
    const int32_t* const tiles =
        params.table.tiles + int64_t{entry.head} * params.lengths.row_blocks() + entry.row_block;
    const RowBlockTiles code{*tiles};
    if (code.is_joined()) return false;
    head_idx = entry.head;
    split = static_cast<int32_t>(item % params.num_splits);
    const auto part = [&](int32_t s) {
      return static_cast<int32_t>(int64_t{code.count()} * s / params.num_splits);
    };
    tile = {.row_block = entry.row_block,
            .num_row_blocks = code.is_pair() ? 2 : 1,
            .first_tile = params.num_splits > 1 ? part(split) : 0,
            .end_tile = params.num_splits > 1 ? part(split + 1) : INT32_MAX};
    return true;
  }
};

/// Which rows and keys of a row tile are a warp's.
template <typename Traits, int kWarpKeys>
struct WarpShare {
  static constexpr bool kHalves = kWarpKeys < Traits::kFillKeys;
  int first_row;   // Of the row tile.
  int first_key;   // Of the keys of each fill.
  int row_block;   // Of the row tile's one or two.
  bool has_other;  // kHalves: the second warp of these rows, with the other keys.

  __device__ WarpShare() {
    const int warp = static_cast<int>(threadIdx.x) / device::kWarpThreads;
    first_row = (kHalves ? warp % 2 : warp) * Traits::kWarpRows;
    first_key = kHalves ? warp / 2 * kWarpKeys : 0;
    row_block = first_row / kBlock;
    has_other = kHalves && warp >= 2;
  }
};

/// The keys of a step that a warp's rows attend; and whether some row of the row block does not
/// attend some key that is loaded.
struct StepKeys {
  uint64_t keep;
  bool exposed;
};

template <typename Traits, int kWarpKeys>
__device__ inline StepKeys step_keys(const PairTile& tile, int first_key, int r) {
  return {.keep = tile.keep[r] >> first_key & low_bits(kWarpKeys),
          .exposed = tile.mask[r] != 0 || tile.keep[r] != tile.loaded()};
}

/// S of the warp's rows and keys, masked and of the right sign.
template <typename Traits, int kWarpKeys>
__device__ inline void score_step(Scores<Traits, kWarpKeys>& scores, const AttentionParams& params,
                                  const HeadKeys& head, const PairTile& tile, int tile_key,
                                  const StepKeys& keys, int r, int32_t first_position) {
  if (params.score_sign != 1) {
#pragma unroll
    for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
      for (int n = 0; n < kWarpKeys / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) scores.s[m][n][i] *= params.score_sign;
      }
    }
  }
  if (tile.mask[r] == 0 && keys.keep == low_bits(kWarpKeys)) return;
  const bool windowed = (tile.mask[r] & kMaskWindow) != 0;
  mask_scores(scores, {.keep = keys.keep,
                       .first_key = tile.begin + tile_key,
                       .columns = tile.columns != 0 ? head.columns : nullptr,
                       .first_position = first_position,
                       .sink = windowed ? head.sink : 0,
                       .window = windowed ? head.window : INT32_MAX,
                       .dense_from = windowed ? dense_from(head, params.lengths) : 0});
}

/// Computes an item. kWarpKeys: keys of each fill that a warp multiplies, half of them where two
/// warps share their rows.
template <typename Traits, int kWarpKeys>
__device__ inline void attend(typename Traits::SharedStorage& storage,
                              const AttentionParams& params, const AttentionItem& item) {
  using Element = typename Traits::Element;
  using Ring = KeyValueRing<Traits>;
  const HeadKeys& head = params.heads[item.head_idx];
  const int32_t batch = item.head_idx / params.num_heads_q;
  const int32_t head_q = item.head_idx % params.num_heads_q;
  const int32_t head_kv = head_q / params.group_size;
  const int32_t first_row = item.tile.row_block * kBlock;

  // 1. The first tiles, the next item, the queries, the first fills.
  TileWalk<Traits::kWarps> walk(storage.queue, head, params.lengths, item.tile);
  if (threadIdx.x == 0) {
    storage.next_item = gridDim.x + static_cast<int64_t>(atomicAdd(params.next_item, 1ull));
  }
  load_query<Traits>(storage, HeadRows<Element>(params.q, batch, head_q, params.head_dim),
                     first_row,
                     min(item.tile.num_row_blocks * kBlock, params.lengths.seqlen_q - first_row));
  Ring ring(storage, walk, HeadRows<Element>(params.k, batch, head_kv, params.head_dim),
            HeadRows<Element>(params.v, batch, head_kv, params.head_dim_v), head.columns);

  // 2. Step by step: scores and softmax, then values.
  const WarpShare<Traits, kWarpKeys> share;
  const WarpRows place{.batch = batch,
                       .head = head_q,
                       .first = first_row + share.first_row,
                       .count = params.lengths.seqlen_q - first_row - share.first_row};
  const int32_t first_position = place.first + params.lengths.offset();
  Element* const query_rows = storage.query + share.first_row * Traits::kDim;
  QueryFragments<Traits> query;
  RowState<Traits> rows;
#pragma unroll 1
  for (int32_t step = 0; ring.has(step); ++step) {
    const Element* const step_k = ring.wait_keys(step);
    if (step == 0) query.load(query_rows);
    const PairTile& tile = walk[step / Ring::kParts];
    const int tile_key = step % Ring::kParts * Traits::kFillKeys + share.first_key;
    const StepKeys keys = step_keys<Traits, kWarpKeys>(tile, tile_key, share.row_block);
    const bool active = keys.keep != 0 && place.count > 0;
    Probabilities<Traits, kWarpKeys> p;
    if (active) {
      Scores<Traits, kWarpKeys> scores;
      score_rows(scores, query, query_rows, step_k, share.first_key);
      score_step<Traits, kWarpKeys>(scores, params, head, tile, tile_key, keys, share.row_block,
                                    first_position);
      p = soften(rows, scores, params.scale_log2);
    }
    const Element* const step_v = ring.wait_values(step);
    if (!active) continue;
    if (keys.exposed && has_nonfinite<Traits, kWarpKeys>(step_v, share.first_key)) {
      add_nonfinite_values(rows, p, step_v, share.first_key);
    } else {
      add_values(rows, p, step_v, share.first_key);
    }
  }

  // 3. Results. Without a step the queries are still on their way.
  arch::cp_async_wait<0>();
  rows.complete_sums();
  if constexpr (WarpShare<Traits, kWarpKeys>::kHalves) {
    auto* const sums = reinterpret_cast<WarpSums<Traits>*>(storage.fills);
    const int pair = share.first_row / Traits::kWarpRows;
    __syncthreads();  // All have left the fills.
    if (share.has_other) give_sums(sums[pair], rows);
    __syncthreads();  // The sums of the other keys are there; all have left the queries.
    if (!share.has_other) take_sums(rows, sums[pair]);
  } else {
    __syncthreads();  // The queries have landed, and may be overwritten.
  }
  if (share.has_other) return;
  normalize(rows);
  if (params.num_splits > 1) {
    const int64_t part = int64_t{item.split} * params.num_partial_heads + item.head_idx;
    store_partial(params, rows, place, part * params.lengths.seqlen_q + place.first);
  } else {
    store_out(params, rows, place, query_rows);
    store_lse(params, rows, place);
  }
}

/// Grid: as many blocks as run at a time.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kMinBlocks)
    attention_kernel(const __grid_constant__ AttentionParams params) {
  auto& storage = arch::shared_storage<typename Traits::SharedStorage>();
  const int64_t num_items = params.table.num_items * params.num_splits;
#pragma unroll 1
  for (int64_t i = blockIdx.x; i < num_items; i = storage.next_item) {
    AttentionItem item;
    if (!item.load(params, i)) return;  // So are all that follow.
    if constexpr (Traits::kPairs) {
      if (item.tile.num_row_blocks == 2) {
        attend<Traits, Traits::kFillKeys>(storage, params, item);
      } else {
        attend<Traits, Traits::kFillKeys / 2>(storage, params, item);
      }
    } else {
      attend<Traits, Traits::kFillKeys>(storage, params, item);
    }
    __syncthreads();  // All have left the item's shared memory; the next item's number stands.
  }
}

}  // namespace minference::sm80
