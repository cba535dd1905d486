// Stage 1 of block-sparse on sm80, second kernel: scores of pooled queries against pooled keys, and
// the blocks selected by them. No score reaches device memory.
//
// A thread block takes 64 row blocks of one head, a warp 16 of them, queries in registers; pooled
// keys stream through shared memory, and what a row block selects stays in its warp. At head_dim
// 128, bf16, 32 query and 8 KV heads, 1M tokens (16384 row and key blocks, half of the pairs in
// sight, 4.3e9 scores):
//   tensor cores   3.3 TFLOP as split products: 7 ms if mma.sync reaches 450 TFLOP/s
//   L2             512 bytes per key block and 64 row blocks: 34 GB, 6 ms at 5.5 TB/s
//   shared memory  every warp reads every key: 5/6 of the cycles of the products at 128 bytes/cycle
//   issue          24 to 38 warp instructions per 32 scores: 3 to 5e9, 4 to 6 ms at 4 per cycle
// and 1/64 of that at 128K. Not 16 row blocks per thread block: 4 times the L2 traffic. Not 128:
// the candidates of 64 take 65 KiB as it is. Not one product of rounded means: see pool_rows.h.
//
// Storage is 99 KiB or less, 158 registers at 128 dims, 226 at 256: 2 thread blocks,
// 8 warps, per SM of sm_90; 1 on sm_80, sm_86, sm_89.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/launch.h"
#include "cuda/arch/shared.h"
#include "cuda/sm80/estimate_block_sparse.h"
#include "cuda/sm80/estimate_block_sparse_radix.h"
#include "cuda/sm80/estimate_block_sparse_stream.h"

namespace minference::sm80::block_sparse {

/// Lists that hold every block in sight: no scores needed. By the whole warp.
__device__ inline void write_all(const TileLists& lists) {
  const int first_row = tile_row(0, 0);
  for (int row = first_row; row < first_row + kWarpRows; ++row) {
    const int32_t candidates = lists.row(row).candidates();
    for (int32_t i = device::lane_index(); i < candidates; i += device::kWarpThreads) {
      lists.of_row(row)[1 + i] = 1 + i;
    }
    finish_list(lists, row, candidates);
  }
}

template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kMinBlocks)
    select_blocks_kernel(const __grid_constant__ SelectBlocksParams params) {
  auto& storage = arch::shared_storage<typename Traits::Storage>();
  const int quad = device::lane_index() / 4;
  const bool by_mass = params.share < 1;

  // 1. Which head and row blocks: late ones, which see most, first.
  const auto num_tiles =
      static_cast<int32_t>((int64_t{params.lengths.row_blocks()} + kTileRows - 1) / kTileRows);
  const auto slot = static_cast<int32_t>(blockIdx.x % static_cast<unsigned>(params.num_targets));
  const int32_t tile =
      num_tiles - 1 - static_cast<int32_t>(blockIdx.x / static_cast<unsigned>(params.num_targets));
  const TileLists lists{
      .target = params.targets[slot], .lengths = params.lengths, .first_row = tile * kTileRows};
  const int last_row = min(kTileRows, params.lengths.row_blocks() - lists.first_row) - 1;
  const BlockRow last = lists.row(last_row);
  if (!by_mass && last.allowed <= lists.target.top_k) return write_all(lists);

  // 2. Pooled queries to registers; from here on their scores can be streamed.
  QueryFragments<Traits> queries;
  load_queries(queries, params.queries + slot * params.query_fragments +
                            device::num_fragments(lists.first_row, Traits::kPaddedDim));
  const device::SplitFragment* keys = params.keys + lists.target.key_head * params.key_fragments;
  const auto stream_blocks = [&](int32_t num_blocks, auto&& consume) {
    stream_scores<Traits>(storage, queries, keys, num_blocks, params.multiplier, consume);
  };
  const BlockRow rows[2] = {lists.row(tile_row(0, quad)), lists.row(tile_row(1, quad))};
  const int32_t first_key = device::lane_index() % 4 * kLaneKeys;
  RowMass mass[2];
  const auto add_mass = [&](int32_t first_block, const LaneScores& scores) {
    for (int half = 0; half < 2; ++half) {
      mass[half].add(scores.of[half], first_block + first_key, rows[half]);
    }
  };

  // 3. Short lists: one pass.
  if (lists.target.top_k <= params.max_streamed_top_k && last.diagonal <= kMaxStreamedBlocks) {
    CandidateStream candidates(storage.candidates, rows);
    stream_blocks(by_mass ? last.allowed : last.diagonal,
                  [&](int32_t first_block, const LaneScores& scores) {
                    if (by_mass) add_mass(first_block, scores);
                    candidates.add(first_block, scores);
                  });
    for (int half = 0; by_mass && half < 2; ++half) mass[half].add_quad();
    return candidates.finish(lists, by_mass, mass, params.share);
  }

  // 4. Others: thresholds digit by digit, then the lists.
  if (by_mass) stream_blocks(last.allowed, add_mass);
  for (int half = 0; half < 2; ++half) {
    if (by_mass) mass[half].add_quad();
    if (device::lane_index() % 4 == 0) {
      storage.rows[tile_row(half, quad)] =
          start_row(rows[half], by_mass, by_mass ? mass[half].wanted(params.share) : 0);
    }
  }
  __syncwarp();  // The warp's searches stand.
  const auto stream = [&](auto&& consume) { stream_blocks(last.diagonal, consume); };
  const float max_score[2] = {mass[0].max, mass[1].max};
  if (by_mass) {
    settle_rows<Traits>(storage, storage.mass_bins, rows, max_score, stream);
  } else {
    settle_rows<Traits>(storage, storage.count_bins, rows, max_score, stream);
  }
  write_selected<Traits>(storage, lists, rows, stream);
}

template <typename Traits>
void launch_select_blocks(const SelectBlocksParams& params, cudaStream_t stream) {
  const int64_t tiles = (int64_t{params.lengths.row_blocks()} + kTileRows - 1) / kTileRows;
  arch::launch("select_blocks", &select_blocks_kernel<Traits>,
               {dim3(static_cast<unsigned>(tiles * params.num_targets)), dim3(Traits::kThreads),
                sizeof(typename Traits::Storage)},
               stream, params);
}

}  // namespace minference::sm80::block_sparse
