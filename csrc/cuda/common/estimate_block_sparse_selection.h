// Selection for a tile of 64 row blocks, whichever way: from scores that a stream brings, however
// they were multiplied. What all backends share of stage 1 of block-sparse.
//
// A Stream has, for all threads of the block together:
//     pass(num_blocks, consume)   consume(first_block, scores) for each group of 16 key blocks
//     any(condition)              whether it holds for any thread
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/common/estimate_block_sparse_radix.h"
#include "cuda/common/estimate_block_sparse_stream.h"

namespace minference::cuda::block_sparse {

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

/// `last`: the last row block of the thread block's, which sees most.
template <typename Stream>
__device__ inline void select_rows(SelectionStorage& storage, const SelectBlocksParams& params,
                                   const TileLists& lists, const BlockRow& last, Stream& stream) {
  const int quad = device::lane_index() / 4;
  const bool by_mass = params.share < 1;
  const BlockRow rows[2] = {lists.row(tile_row(0, quad)), lists.row(tile_row(1, quad))};
  const int32_t first_key = device::lane_index() % 4 * kLaneKeys;
  RowMass mass[2];
  const auto add_mass = [&](int32_t first_block, const LaneScores& scores) {
    for (int half = 0; half < 2; ++half) {
      mass[half].add(scores.of[half], first_block + first_key, rows[half]);
    }
  };

  // 1. Short lists: one pass.
  if (lists.target.top_k <= params.max_streamed_top_k && last.diagonal <= kMaxStreamedBlocks) {
    CandidateStream candidates(storage.candidates, rows);
    stream.pass(by_mass ? last.allowed : last.diagonal,
                [&](int32_t first_block, const LaneScores& scores) {
                  if (by_mass) add_mass(first_block, scores);
                  candidates.add(first_block, scores);
                });
    for (int half = 0; by_mass && half < 2; ++half) mass[half].add_quad();
    return candidates.finish(lists, by_mass, mass, params.share);
  }

  // 2. Others: thresholds digit by digit, then the lists.
  if (by_mass) stream.pass(last.allowed, add_mass);
  for (int half = 0; half < 2; ++half) {
    if (by_mass) mass[half].add_quad();
    if (device::lane_index() % 4 == 0) {
      storage.rows[tile_row(half, quad)] =
          start_row(rows[half], by_mass, by_mass ? mass[half].wanted(params.share) : 0);
    }
  }
  __syncwarp();  // The warp's searches stand.
  const float max_score[2] = {mass[0].max, mass[1].max};
  if (by_mass) {
    settle_rows(storage, storage.mass_bins, last.diagonal, rows, max_score, stream);
  } else {
    settle_rows(storage, storage.count_bins, last.diagonal, rows, max_score, stream);
  }
  write_selected(storage, lists, rows, last.diagonal, stream);
}

}  // namespace minference::cuda::block_sparse
