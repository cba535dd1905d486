// Stage 3 on sm80: exact softmax attention over the tiles that each row block attends, all patterns
// and heads in one launch. The kernel sees tiles only; core/key_tiles.h decides which.
//
// Blocks are persistent: each takes items from the work table, longest first, and draws the number
// of the next one while it computes. An item is a row tile of one head, or, in small calls, a part
// of its keys (AttentionParams::num_splits).
//
// Source: FlashAttention-2 (arXiv:2307.08691): Q in place, P in registers, K and V streamed by
// cp.async; MInference (arXiv:2407.02490), Appendix C.4, for the sparse sets.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/arch/launch.h"
#include "cuda/arch/math.h"
#include "cuda/arch/shared.h"
#include "cuda/common/row_tiles.h"
#include "cuda/sm80/attention_epilogue.h"
#include "cuda/sm80/attention_load.h"
#include "cuda/sm80/attention_mainloop.h"
#include "cuda/sm80/attention_traits.h"
#include "cuda/sm80/kernels.h"

namespace minference::sm80 {

/// Where part `part` of `count` begins: each part before it has floor(count / parts), and the first
/// ones one more, until the remainder is used up.
__device__ inline uint32_t part_of(uint32_t count, uint32_t part, uint32_t parts) {
  return count / parts * part + min(part, count % parts);
}

/// The row tile of item number `item`, and its part of the tiles if keys are split (then items are
/// few). num_row_blocks is 0 if there is no more to do.
__device__ inline device::RowTile load_item(const AttentionParams& params, int64_t item) {
  if (params.num_splits == 1) return cuda::row_tile(params.table, params.sequences.max, item);
  const auto num_splits = static_cast<uint32_t>(params.num_splits);
  const uint32_t split = static_cast<uint32_t>(item) % num_splits;
  device::RowTile tile =
      cuda::row_tile(params.table, params.sequences.max, static_cast<uint32_t>(item) / num_splits);
  if (tile.num_row_blocks == 0) return tile;
  const auto count = static_cast<uint32_t>(
      cuda::tiles_of(params.table, params.sequences.max, tile.head_idx, tile.row_block).count());
  tile.first_tile = static_cast<int32_t>(part_of(count, split, num_splits));
  tile.end_tile = static_cast<int32_t>(part_of(count, split + 1, num_splits));
  tile.split = static_cast<int32_t>(split);
  return tile;
}

/// Which rows of a row tile, and which keys of each fill (a stage), belong to a warp. The keys of a
/// fill are one or two steps. With two row blocks each warp has its own rows and takes both steps.
/// With one row block on 32-row warps, two warps have the same rows and take a step each.
template <typename Traits>
struct WarpShare {
  int first_row;   // Index in the row tile.
  int row_block;   // 0 or 1: which of the row tile's row blocks.
  int first_step;  // Index in a fill.
  int num_steps;
  bool is_shared;  // Another warp has the same rows and the other steps.

  __device__ explicit WarpShare(int num_row_blocks) {
    const auto warp = static_cast<int>(arch::opaque(threadIdx.x) / device::kWarpThreads);
    is_shared = Traits::kPairs && num_row_blocks == 1;
    first_row = (is_shared ? warp % 2 : warp) * Traits::kWarpRows;
    row_block = first_row / kBlock;
    first_step = is_shared ? warp / 2 : 0;
    num_steps = is_shared ? 1 : Traits::kFillSteps;
  }

  __device__ WarpRows rows_of(const AttentionParams& params, const device::RowTile& tile) const {
    const int32_t first = tile.row_block * kBlock + first_row;
    const int32_t batch = tile.head_idx / params.num_heads_q;
    return {.batch = batch,
            .head = tile.head_idx % params.num_heads_q,
            .first = first,
            .count = params.sequences.at(batch).lengths.seqlen_q - first};
  }
};

/// Keys that row block `r` attends in the step that begins at a tile's `first_key`, from bit 0 on.
template <typename Traits>
__device__ inline uint64_t step_keep(const device::PairTile& tile, int r, int first_key) {
  return tile.keep[r] >> first_key & low_bits(Traits::kStepKeys);
}

/// S of a step, masked, with the sign of the scale. first_key: the tile's first key.
template <typename Traits>
__device__ inline void finish_scores(Scores<Traits>& scores, const AttentionParams& params,
                                     const Lengths& lengths,
                                     const device::TileWalk<typename Traits::Group>& walk,
                                     const device::PairTile& tile, const WarpShare<Traits>& share,
                                     int first_key) {
  if (params.score_sign != 1) {
#pragma unroll
    for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
      for (int n = 0; n < Traits::kStepKeys / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) scores.s[m][n][i] *= params.score_sign;
      }
    }
  }
  const int r = share.row_block;
  const uint64_t keep = step_keep<Traits>(tile, r, first_key);
  if (tile.mask[r] == 0 && keep == low_bits(Traits::kStepKeys)) return;
  auto mask = device::KeyMask::of(tile, r, walk.head(), lengths);
  mask.keep = keep;
  mask.first_key += first_key;
  mask_scores(scores, mask,
              walk.row_tile().row_block * kBlock + share.first_row + lengths.offset());
}

/// Computes the queue's row tile. Values not needed in step 2 are read again after it.
template <typename Traits>
__device__ inline void attend(typename Traits::SharedStorage& storage,
                              const AttentionParams& params) {
  using Element = typename Traits::Element;
  using Ring = KeyValueRing<Traits>;
  constexpr int kSteps = Traits::kFillSteps;

  // 1. The first tiles, the queries, the first fills, the next item's number.
  const Sequence sequence =
      params.sequences.at(storage.queue.row_tile.head_idx / params.num_heads_q);
  const Lengths& lengths = sequence.lengths;
  device::TileWalk<typename Traits::Group> walk(storage.queue, params.heads, lengths);
  const device::RowTile& row_tile = walk.row_tile();
  const int32_t head_q = row_tile.head_idx % params.num_heads_q;
  const int32_t first_row = row_tile.row_block * kBlock;
  load_query<Traits>(storage, query_rows<Element>(params.q, sequence, head_q), params.head_dim,
                     first_row,
                     min(row_tile.num_row_blocks * kBlock, lengths.seqlen_q - first_row));
  Ring ring(storage, walk, params, sequence, head_q / params.group_size);

  // After the copies, so that its latency is hidden by theirs.
  if (threadIdx.x == 0) {
    storage.next_item = gridDim.x + static_cast<int64_t>(atomicAdd(params.next_item, 1ull));
  }

  // 2. Fill by fill: scores and softmax of a step or two, then their values.
  const WarpShare<Traits> share(row_tile.num_row_blocks);
  const int num_steps = first_row + share.first_row < lengths.seqlen_q ? share.num_steps : 0;
  const uint32_t query_rows = arch::shared_address(storage.query + share.first_row * Traits::kDim) +
                              device::row_offset<typename Traits::QueryRows>();
  const uint32_t key_place = device::key_offset<typename Traits::QueryRows>() +
                             share.first_step * Traits::kStepKeys * Traits::QueryRows::kRowBytes;
  const uint32_t value_place = device::row_offset<typename Traits::ValueRows>() +
                               share.first_step * Traits::kStepKeys * Traits::ValueRows::kRowBytes;
  QueryFragments<Traits> query;
  RowState<Traits> rows;
#pragma unroll 1
  for (int32_t part = 0; ring.has(part); ++part) {
    const uint32_t keys = ring.wait_keys(part) + key_place;
    if (part == 0) query.load(query_rows);
    const device::PairTile& tile = walk[part / Ring::kParts];
    const int first_key =
        part % Ring::kParts * Traits::kFillKeys + share.first_step * Traits::kStepKeys;
    // In most tiles nothing is masked, skipped or guarded.
    const bool whole =
        device::warp_uniform(tile.whole != 0 && params.score_sign == 1 && num_steps > 0);
    Probabilities<Traits> p[kSteps];
    bool active[kSteps];
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int step_key = first_key + i * Traits::kStepKeys;
      active[i] = whole && i == 0;
      if (!active[i]) {
        active[i] = device::warp_uniform(
            i < num_steps && (whole || step_keep<Traits>(tile, share.row_block, step_key) != 0));
      }
      if (!active[i]) continue;
      Scores<Traits> scores;
      score_rows(scores, query, arch::opaque(query_rows),
                 keys + i * Traits::kStepKeys * Traits::QueryRows::kRowBytes);
      if (!whole) finish_scores(scores, params, lengths, walk, tile, share, step_key);
      soften(rows, scores, params.scale_log2, p, i, /*num_before=*/i > 0 && active[0] ? 1 : 0);
    }
    const bool exposed = !whole && device::warp_uniform(is_exposed(tile, share.row_block));
    const uint32_t values = ring.wait_values(part) + value_place;
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      if (!active[i]) continue;
      const uint32_t step_values = values + i * Traits::kStepKeys * Traits::ValueRows::kRowBytes;
      if (exposed && has_nonfinite<Traits>(step_values)) {
        add_nonfinite_values(rows, p[i], step_values);
      } else {
        add_values(rows, p[i], step_values);
      }
    }
  }

  // 3. Results. If there was no fill, the queries are still in flight.
  arch::cp_async_wait<0>();
  rows.complete_sums();
  const WarpShare<Traits> last_share(row_tile.num_row_blocks);
  __syncthreads();  // All have finished with the fills and the queries, which have landed.
  if constexpr (Traits::kPairs) {
    if (device::warp_uniform(last_share.is_shared)) {
      auto* const sums = reinterpret_cast<WarpSums<Traits>*>(storage.fills);
      const int pair = last_share.first_row / Traits::kWarpRows;
      if (last_share.first_step > 0) give_sums(sums[pair], rows);
      __syncthreads();  // The sums over the other keys are written.
      if (last_share.first_step > 0) return;
      take_sums(rows, sums[pair]);
    }
  }
  normalize(rows);
  const WarpRows place = last_share.rows_of(params, row_tile);
  if (params.num_splits > 1) {
    store_partial(params, rows, place, row_tile.split);
  } else {
    store_out(params, rows, place,
              reinterpret_cast<std::byte*>(storage.query + last_share.first_row * Traits::kDim));
    store_lse(params, rows, place);
  }
}

/// Grid: as many blocks as run at a time.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kMinBlocks)
    attention_kernel(const __grid_constant__ AttentionParams params) {
  auto& storage = arch::shared_storage<typename Traits::SharedStorage>();
  // First a value of its own: what a function writes as its result, emulated threads do not see.
  if (threadIdx.x == 0) {
    const device::RowTile first = load_item(params, blockIdx.x);
    storage.queue.row_tile = first;
  }
  __syncthreads();  // The first item is visible to all threads.
#pragma unroll 1
  while (device::warp_uniform(storage.queue.row_tile.num_row_blocks > 0)) {
    attend<Traits>(storage, params);
    __syncthreads();  // All have finished with the item's shared memory.
    if (threadIdx.x == 0) {
      const device::RowTile next = load_item(params, storage.next_item);
      storage.queue.row_tile = next;
    }
    __syncthreads();  // The next item is visible to all threads.
  }
}

// ---- Host ---------------------------------------------------------------------------------------

template <typename Traits>
int32_t resident_attention_blocks() {
  return arch::resident_blocks("attention", &attention_kernel<Traits>, Traits::kThreads,
                               sizeof(typename Traits::SharedStorage));
}

template <typename Traits, typename Rows>
RowSteps row_steps(const KvRows& rows) {
  using Element = typename Traits::Element;
  const int64_t next = rows.tensor.token_stride * static_cast<int64_t>(sizeof(Element));
  return {.next = next, .next_copied = CopyShare<Rows, Traits::kThreads>::kStep * next};
}

template <typename Traits>
void launch_attention(const AttentionParams& params, int32_t num_blocks, cudaStream_t stream) {
  AttentionParams with_steps = params;
  with_steps.k_steps = row_steps<Traits, typename Traits::QueryRows>(params.k);
  with_steps.v_steps = row_steps<Traits, typename Traits::ValueRows>(params.v);
  arch::launch("attention", &attention_kernel<Traits>,
               {dim3(static_cast<unsigned>(num_blocks)), dim3(Traits::kThreads),
                sizeof(typename Traits::SharedStorage)},
               stream, with_steps);
}

template <typename Element, int kDim, int kDimV>
AttentionInstance attention_instance() {
  using Traits = AttentionTraits<Element, kDim, kDimV>;
  return {kDimV, Traits::kPairs, &resident_attention_blocks<Traits>, &launch_attention<Traits>};
}

}  // namespace minference::sm80
