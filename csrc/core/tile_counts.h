// How many tiles KeyTiles (key_tiles.h) yields for a row block, without walking them: a device
// counts them for every row block of every head, to order its work.
//
// All lists are as KeyTiles demands them: ascending, in range. Columns and runs count apart, for
// the runs' part of many row blocks comes cheaper together (see run_growth).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "core/key_tiles.h"
#include "core/pattern.h"

namespace minference {

MINF_HOST_DEVICE inline int32_t ceil_blocks(int32_t keys) { return (keys + kBlock - 1) / kBlock; }

/// Tiles of a row block of a head of Form::kShape.
MINF_HOST_DEVICE inline int32_t count_shape_tiles(const HeadKeys& head, const Lengths& lengths,
                                                  const RowBlock& row) {
  const int32_t visible = row.last_position + 1;
  if (row.last_position >= dense_from(head, lengths)) return ceil_blocks(visible);
  const int32_t sink_tiles = ceil_blocks(min_of(head.sink, visible));
  if (head.window == 0) return sink_tiles;
  const int32_t window_key = round_down(max_of(0, row.first_position - head.window + 1));
  return sink_tiles + max_of(0, ceil_blocks(visible) - max_of(sink_tiles, window_key / kBlock));
}

/// Tiles of a row block of a head of Form::kBlocks: its list up to the first block that no row
/// sees.
MINF_HOST_DEVICE inline int32_t count_block_tiles(const HeadKeys& head, const RowBlock& row) {
  const int32_t* const blocks = head.blocks + row.index * head.block_stride;
  const auto limit = static_cast<uint32_t>(row.last_position / kBlock);
  // A list that ascends, as it should, holds no more.
  const int32_t most = min_of(head.max_blocks, row.last_position / kBlock + 1);
  int32_t count = 0;
  while (count < most && static_cast<uint32_t>(blocks[count]) <= limit) ++count;
  return count;
}

/// Column tiles of a row block of a head of Form::kRuns: 64 entries of the list each, not counted
/// if runs attend all of them that the rows see.
MINF_HOST_DEVICE inline int32_t count_column_tiles(const HeadKeys& head, const RowBlock& row) {
  int32_t count = 0;
  int32_t num_runs = head.num_runs;  // Runs from here on lie before the columns still to come.
  for (int32_t begin = 0; begin < head.num_columns; begin += kBlock) {
    const int32_t end = min_of(kBlock, head.num_columns - begin) + begin;
    for (int32_t entry = begin; entry < end; ++entry) {
      if (head.columns[entry] > row.last_position) return count;
      const int32_t distance = row.end - head.columns[entry];
      num_runs = count_runs_below(head, num_runs, distance);
      if (num_runs > 0 && distance <= head.runs[num_runs - 1].hi) continue;
      ++count;
      break;
    }
  }
  return count;
}

/// The tiles of one run: none up to row block `first - 1`, one more with each row block from
/// `first` on, and `full` from the moment on when the run lies past key 0. For end_r grows by 64
/// with r.
struct RunGrowth {
  int32_t first;  // May be negative: where the call's first row block sees several tiles.
  int32_t full;
};

MINF_HOST_DEVICE inline RunGrowth run_growth(const Run& run, const Lengths& lengths) {
  // The smallest r with end_r = 64 (r + 1) + offset > lo.
  const int32_t beyond = run.lo - lengths.offset();
  return {.first = beyond >= 0 ? beyond / kBlock : -ceil_blocks(-beyond),
          .full = (run.hi - run.lo) / kBlock};
}

/// Tiles of a run in row block `row_block`.
MINF_HOST_DEVICE inline int32_t count_run_tiles(const RunGrowth& growth, int32_t row_block) {
  return max_of(0, min_of(row_block - growth.first + 1, growth.full));
}

/// Upper bound on the tiles of a row block, whatever its head's lists hold: every key once as a
/// column and once in a run, plus one cut run tile. It is not valid for block lists that do not
/// ascend.
MINF_HOST_DEVICE inline int32_t max_row_block_tiles(const Lengths& lengths) {
  return 2 * lengths.key_blocks() + 1;
}

}  // namespace minference
