// The one iterator: the key tiles of a row block, in order, each with what must be masked in it.
// Every backend walks it, so the meaning of a pattern exists once and kernels know tiles only.
//
// Contiguous tiles are keys [begin, begin + count). Column tiles are up to 64 consecutive entries
// of the head's column list, of which the bits of `keep` are attended: a column inside a run is
// not, because its run attends it. Order: columns, then contiguous tiles, ascending keys. (Columns
// first: sinks are among them and set the row maxima early, which spares rescaling.)
//
// Tiles of one kind lie on a grid that neighbouring row blocks share, so that a kernel can load a
// tile once for several of them: multiples of 64 keys for dense, A-shape and block-sparse tiles;
// for a run, steps of 64 back from its near end.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "core/pattern.h"

namespace minference {

/// Why some rows must not see every attended key of the tile. Bit flags.
enum TileMask : uint8_t {
  kMaskNone = 0,
  kMaskCausal = 1,  // Some key is after some row.
  kMaskWindow = 2,  // Some key is outside the window of some row (and not a sink).
};

struct KeyTile {
  int32_t begin = 0;  // First key; of a column tile, first entry of the column list.
  int32_t count = 0;  // 1 to 64.
  uint64_t keep = 0;  // Bit t: entry t is attended. All `count` bits in a contiguous tile.
  bool columns = false;
  uint8_t mask = kMaskNone;
};

MINF_HOST_DEVICE inline int32_t min_of(int32_t a, int32_t b) { return a < b ? a : b; }
MINF_HOST_DEVICE inline int32_t max_of(int32_t a, int32_t b) { return a > b ? a : b; }
MINF_HOST_DEVICE inline int32_t round_down(int32_t x) { return x / kBlock * kBlock; }
MINF_HOST_DEVICE inline uint64_t low_bits(int32_t count) {
  return count >= kBlock ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
}

/// How many of the first `num_runs` runs have lo < distance.
MINF_HOST_DEVICE inline int32_t count_runs_below(const HeadKeys& head, int32_t num_runs,
                                                 int32_t distance) {
  int32_t lo = 0, hi = num_runs;
  while (lo < hi) {
    const int32_t mid = lo + (hi - lo) / 2;
    if (head.runs[mid].lo < distance) {
      lo = mid + 1;
    } else {
      hi = mid;
    }
  }
  return lo;
}

/// Whether one of the head's runs attends `column`, which some row of the row block sees.
MINF_HOST_DEVICE inline bool is_in_run(const HeadKeys& head, const RowBlock& row, int32_t column) {
  const int32_t distance = row.end - column;
  const int32_t num_runs = count_runs_below(head, head.num_runs, distance);
  return num_runs > 0 && distance <= head.runs[num_runs - 1].hi;
}

/// First key, on the grid of 64, that a row of the row block sees by its window, if that is not 0.
MINF_HOST_DEVICE inline int32_t first_window_key(const HeadKeys& head, const RowBlock& row) {
  return round_down(max_of(0, row.first_position - head.window + 1));
}

/// The first position whose row attends every key that it can see; for a head of Form::kShape.
MINF_HOST_DEVICE inline int32_t dense_from(const HeadKeys& head, const Lengths& lengths) {
  return lengths.seqlen_k - min_of(head.dense_rows, lengths.seqlen_q);
}

/// Whether every row of the call attends every key that it can see, by the head's form alone.
MINF_HOST_DEVICE inline bool is_dense(const HeadKeys& head, const Lengths& lengths) {
  return head.form == Form::kShape && head.dense_rows >= lengths.seqlen_q;
}

/// Walks the key tiles of one row block.
///
///     KeyTiles tiles(head, lengths, row_block);
///     for (KeyTile tile; tiles.next(tile);) ...
class KeyTiles {
 public:
  KeyTiles() = default;  // Yields nothing.

  MINF_HOST_DEVICE KeyTiles(const HeadKeys& head, const Lengths& lengths, int32_t row_block)
      : head_(&head), row_(lengths, row_block) {
    switch (head.form) {
      case Form::kRuns:
        // Runs from this one on lie before key 0.
        next_run_ = column_run_ = count_runs_below(head, head.num_runs, row_.end);
        start_run();
        break;
      case Form::kBlocks:
        break;
      case Form::kShape:
        start_shape(dense_from(head, lengths));
    }
  }

  /// Skips all column tiles. Call it before the first next().
  MINF_HOST_DEVICE void skip_columns() {
    if (head_ != nullptr && head_->form == Form::kRuns) {
      entry_ = head_->num_columns;
    }
  }

  /// Skips `count` tiles, or all that are left; none of them may be a column tile. The cost is a
  /// step per run, so that many threads can find a tile each.
  MINF_HOST_DEVICE void skip(int32_t count) {
    if (head_ == nullptr) return;
    switch (head_->form) {
      case Form::kRuns:
        return skip_run_tiles(count);
      case Form::kBlocks:
        entry_ = count < head_->max_blocks - entry_ ? entry_ + count : head_->max_blocks;
        return;
      default:
        return skip_shape_tiles(count);
    }
  }

  /// Writes the next tile, or returns false at the end.
  MINF_HOST_DEVICE bool next(KeyTile& tile) {
    if (head_ == nullptr) return false;
    switch (head_->form) {
      case Form::kRuns:
        return next_column_tile(tile) || next_run_tile(tile);
      case Form::kBlocks:
        return next_block(tile);
      default:
        return next_shape_tile(tile);
    }
  }

 private:
  // ---- kShape: the sink tiles [0, sink_end), then the window's, on one grid.

  MINF_HOST_DEVICE void start_shape(int32_t dense_position) {
    const int32_t visible = row_.last_position + 1;
    if (row_.last_position >= dense_position) {
      key_ = window_key_ = 0;
    } else {
      const int32_t sink_end = min_of(head_->sink, visible);
      sink_end_ = (sink_end + kBlock - 1) / kBlock * kBlock;
      window_key_ = first_window_key(*head_, row_);
      if (head_->window == 0) window_key_ = visible;
      key_ = sink_end_ > 0 ? 0 : window_key_;
    }
    // Rows before dense_position see a window, the others everything. A block of both is masked.
    last_windowed_ = min_of(row_.last_position, dense_position - 1);
  }

  MINF_HOST_DEVICE bool next_shape_tile(KeyTile& tile) {
    const int32_t visible = row_.last_position + 1;
    if (key_ >= sink_end_ && key_ < window_key_) key_ = window_key_;
    if (key_ >= visible) return false;
    tile = contiguous_tile(key_, min_of(key_ + kBlock, visible));
    const int32_t last_key = tile.begin + tile.count - 1;
    // The last windowed row must reach the tile's first key that is not a sink; else mask.
    if (last_windowed_ >= row_.first_position && last_key >= head_->sink &&
        last_windowed_ - max_of(tile.begin, head_->sink) >= head_->window) {
      tile.mask |= kMaskWindow;
    }
    key_ += kBlock;
    return true;
  }

  MINF_HOST_DEVICE void skip_shape_tiles(int32_t count) {
    const int32_t of_sink = min_of(count, max_of(0, sink_end_ - key_) / kBlock);
    key_ += of_sink * kBlock;
    if (of_sink == count) return;
    key_ = max_of(key_, window_key_);
    const int32_t visible = row_.last_position + 1;
    const int32_t left = (max_of(0, visible - key_) + kBlock - 1) / kBlock;
    key_ += min_of(count - of_sink, left) * kBlock;
  }

  // ---- kBlocks

  MINF_HOST_DEVICE bool next_block(KeyTile& tile) {
    if (entry_ >= head_->max_blocks) return false;
    const int32_t block = head_->blocks[row_.index * head_->block_stride + entry_];
    // The list ascends, so it ends at the first block that no row sees, or at -1.
    if (block < 0 || block > row_.last_position / kBlock) return false;
    ++entry_;
    tile = contiguous_tile(block * kBlock, min_of((block + 1) * kBlock, row_.last_position + 1));
    return true;
  }

  // ---- kRuns: columns outside the runs, then the runs, far to near

  MINF_HOST_DEVICE bool next_column_tile(KeyTile& tile) {
    while (entry_ < head_->num_columns && head_->columns[entry_] <= row_.last_position) {
      tile = KeyTile{.begin = entry_, .columns = true};
      for (; tile.count < kBlock && entry_ < head_->num_columns; ++tile.count, ++entry_) {
        const int32_t column = head_->columns[entry_];
        if (column > row_.last_position) break;
        if (covered(column)) continue;
        tile.keep |= uint64_t{1} << tile.count;
        if (column > row_.first_position) tile.mask = kMaskCausal;
      }
      if (tile.keep != 0) return true;
    }
    return false;
  }

  /// Whether a run attends `column`. Columns must ascend from call to call: the walk over the runs
  /// only moves from far to near.
  MINF_HOST_DEVICE bool covered(int32_t column) {
    const int32_t distance = row_.end - column;  // Covered: lo < distance <= hi.
    while (column_run_ > 0 && head_->runs[column_run_ - 1].lo >= distance) --column_run_;
    return column_run_ > 0 && distance <= head_->runs[column_run_ - 1].hi;
  }

  MINF_HOST_DEVICE void start_run() {
    if (next_run_ == 0) return;
    const Run run = head_->runs[next_run_ - 1];
    const int32_t near = row_.end - run.lo;
    const int32_t far = max_of(0, row_.end - run.hi);
    // May be < 0: the grid starts at the near end.
    key_ = near - (near - far + kBlock - 1) / kBlock * kBlock;
  }

  MINF_HOST_DEVICE bool next_run_tile(KeyTile& tile) {
    if (next_run_ == 0) return false;
    const int32_t near = row_.end - head_->runs[next_run_ - 1].lo;
    tile = contiguous_tile(max_of(0, key_), min_of(key_ + kBlock, row_.last_position + 1));
    key_ += kBlock;
    if (key_ >= near) {
      --next_run_;
      start_run();
    }
    return true;
  }

  MINF_HOST_DEVICE void skip_run_tiles(int32_t count) {
    while (next_run_ > 0) {
      const int32_t near = row_.end - head_->runs[next_run_ - 1].lo;
      const int32_t left = (near - key_) / kBlock;
      if (count < left) {
        key_ += count * kBlock;
        return;
      }
      count -= left;
      --next_run_;
      start_run();
    }
  }

  // ---- shared

  MINF_HOST_DEVICE KeyTile contiguous_tile(int32_t begin, int32_t end) const {
    KeyTile tile{.begin = begin, .count = end - begin, .keep = low_bits(end - begin)};
    if (end - 1 > row_.first_position) tile.mask = kMaskCausal;
    return tile;
  }

  const HeadKeys* head_ = nullptr;
  RowBlock row_;
  int32_t key_ = 0;         // Next contiguous tile's place on its grid.
  int32_t entry_ = 0;       // Next column, or next entry of the block list.
  int32_t next_run_ = 0;    // Runs below this one are still to come, far to near.
  int32_t column_run_ = 0;  // Runs from this one on lie before the columns still to come.
  int32_t sink_end_ = 0;
  int32_t window_key_ = 0;
  int32_t last_windowed_ = -1;  // Position of the last row that sees a window.
  // Explicit padding: threads copy whole walks to each other.
  [[maybe_unused]] int32_t reserved_ = 0;
};

/// Number of tiles that KeyTiles yields for a row block: the unit in which work is scheduled and
/// reported.
MINF_HOST_DEVICE inline int64_t count_key_tiles(const HeadKeys& head, const Lengths& lengths,
                                                int32_t row_block) {
  // At 1M keys, walking the dense heads alone would take seconds.
  if (is_dense(head, lengths)) {
    return RowBlock(lengths, row_block).last_position / kBlock + 1;
  }
  KeyTiles tiles(head, lengths, row_block);
  int64_t count = 0;
  for (KeyTile tile; tiles.next(tile);) ++count;
  return count;
}

// ---- How many tiles KeyTiles yields for a row block, without walking them
//
// A device counts them for every row block of every head, to order its work. All lists are as
// KeyTiles demands them: ascending and in range. Columns and runs are counted apart, because the
// runs of many row blocks are cheaper to count together (see run_growth).

MINF_HOST_DEVICE inline int32_t ceil_blocks(int32_t keys) { return (keys + kBlock - 1) / kBlock; }

/// Tiles of a row block of a head of Form::kShape.
MINF_HOST_DEVICE inline int32_t count_shape_tiles(const HeadKeys& head, const Lengths& lengths,
                                                  const RowBlock& row) {
  const int32_t visible = row.last_position + 1;
  if (row.last_position >= dense_from(head, lengths)) return ceil_blocks(visible);
  const int32_t sink_tiles = ceil_blocks(min_of(head.sink, visible));
  if (head.window == 0) return sink_tiles;
  const int32_t window_key = first_window_key(head, row);
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

/// Column tiles of a row block of a head of Form::kRuns: 64 entries of the list each. A tile does
/// not count if runs attend all of its entries that the rows see.
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

/// How many tiles one run has in row block r. end_r grows by 64 with r, so: none before row block
/// `first`, one more with each row block from `first` on, and `full` once the whole run lies past
/// key 0.
struct RunGrowth {
  int32_t first;  // Negative if the call's first row block sees several tiles.
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
