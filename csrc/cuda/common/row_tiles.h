// Items of the work table as row tiles, for the threads of attention kernels.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/common/attention_launch.h"
#include "cuda/device/tile_walk.h"

namespace minference::cuda {

/// Tiles of the item that begins at `row_block` of `head`.
__device__ inline RowBlockTiles tiles_of(const WorkTable& table, const Lengths& lengths,
                                         int32_t head, int32_t row_block) {
  return {table.tiles[int64_t{head} * lengths.row_blocks() + row_block]};
}

/// Item number `item`, with all its tiles. num_row_blocks is 0 past the last item, and for a row
/// block that belongs to the previous one's item: such entries are the table's last.
__device__ inline device::RowTile row_tile(const WorkTable& table, const Lengths& lengths,
                                           int64_t item) {
  if (item >= table.num_items) return {};
  const WorkItem entry = table.items[item];
  const RowBlockTiles tiles = tiles_of(table, lengths, entry.head, entry.row_block);
  if (tiles.is_joined()) return {};
  return {.head_idx = entry.head,
          .row_block = entry.row_block,
          .num_row_blocks = tiles.is_pair() ? 2 : 1,
          .first_tile = 0,
          .end_tile = INT32_MAX,
          .split = 0};
}

}  // namespace minference::cuda
