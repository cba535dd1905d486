// The key tiles of a row tile (one row block, or two neighbouring ones), in order, and which of a
// tile's keys a row attends. The threads of a group find tiles together and queue them in shared
// memory ahead of their use.
//
// A walk of core/key_tiles.h is a chain of dependent steps, far too slow for one thread of a GPU.
// Instead each of 16 lanes skips one tile for each lane before it and takes the next one, for both
// row blocks at once; the two ascending sequences are merged by rank. For column tiles each lane
// takes one entry of the list and searches the runs for it; votes give the tile's `keep`.
//
// Cost, from the stalls in the machine code and assumed latencies: about 1500 cycles for 16
// contiguous tiles; for 16 column tiles (each warp searches the runs for four of them) 8,000
// without runs, 20,000 and more with many. A multiprocessor multiplies 16 joined tiles in 29,000
// cycles on sm_80. That time is hidden by its other block, or on sm_90 by finding four batches
// ahead.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/key_tiles.h"
#include "cuda/device/thread_group.h"

namespace minference::device {

/// 64 keys or fewer, loaded once for both row blocks of a row tile.
struct alignas(8) PairTile {
  int32_t begin;  // First key; first entry of the column list if it is a column tile.
  uint8_t columns;
  uint8_t mask[2];   // TileMask of each row block.
  uint8_t whole;     // 64 contiguous keys, each attended by all rows of the row tile.
  uint64_t keep[2];  // Keys that each row block attends; 0: it skips the tile.

  __device__ uint64_t loaded() const { return keep[0] | keep[1]; }
  /// Whether all rows of a row block attend all 64 keys.
  __device__ static bool is_whole(uint64_t keep, int mask) {
    return keep == low_bits(kBlock) && mask == 0;
  }
};

/// A row tile of a head, and which of its tiles are wanted: [first_tile, end_tile) of those that
/// TileWalk finds. A row tile of two row blocks always wants all.
struct RowTile {
  int32_t head_idx;  // batch * num_heads_q + query head.
  int32_t row_block;
  int32_t num_row_blocks;  // 1 or 2.
  int32_t first_tile;
  int32_t end_tile;
  int32_t split;  // Which part of the keys these tiles are.
};

inline constexpr int kBatchTiles = 16;

/// refill() writes it between its barriers, and all threads read it after them. The state of a walk
/// is here too, because the products need all registers. It has at least two batches: one is found
/// while the last tile of the previous one is still in use.
template <int kBatches = 2>
struct TileQueue {
  RowTile row_tile;
  PairTile tiles[kBatches * kBatchTiles];
  KeyTiles walk[2];       // Of each row block, past the tiles already queued.
  int32_t last_begin[2];  // Start of the tile that each walk yielded last.
  int32_t next_column;    // First entry of the column tile to look at next; -1: none.
  int32_t to_skip;        // Tiles before the first one wanted.
  int32_t wanted;         // Tiles still to be queued.
  int32_t batch;          // Tiles of the last batch found. 0: there are no more.

  /// The place of tile number `number`.
  __device__ PairTile& operator[](uint32_t number) {
    return tiles[number % (kBatches * kBatchTiles)];
  }
};

/// Finds tiles in batches. All threads of the group call every function together.
template <typename Group, int kQueueBatches = 2>
class TileWalk {
 public:
  using Queue = TileQueue<kQueueBatches>;

  /// Walks queue.row_tile, which must be set. Tiles are numbered from `first` on.
  __device__ TileWalk(Queue& queue, const HeadKeys* heads, const Lengths& lengths,
                      uint32_t first = 0)
      : queue_(queue), heads_(heads), lengths_(lengths), queued_(first) {
    const int thread = Group::thread();
    const RowTile& tile = queue.row_tile;
    const HeadKeys& head = this->head();
    if (thread < 2) {
      KeyTiles walk;
      if (thread < tile.num_row_blocks) walk = KeyTiles(head, lengths, tile.row_block + thread);
      walk.skip_columns();
      queue_.walk[thread] = walk;
      queue_.last_begin[thread] = -1;
    }
    if (thread == 0) {
      queue_.next_column = head.form == Form::kRuns ? 0 : -1;
      queue_.to_skip = tile.first_tile;
      queue_.wanted = tile.end_tile - tile.first_tile;
      queue_.batch = kBatchTiles;
    }
    Group::sync();  // The walks are initialised.
  }

  /// Whether there is a tile number `tile`; if so, it can be read from the queue. Numbers ascend
  /// and are at most kBatchTiles ahead of the oldest tile in use. Has barriers if it finds another
  /// batch.
  __device__ bool has(uint32_t tile) {
    if (!has_queued(tile)) find();
    return has_queued(tile);
  }

  /// The same for a tile that has() was called for before.
  __device__ bool has_queued(uint32_t tile) const { return warp_uniform(tile < queued_); }

  /// Queues the next batch, at most kBatchTiles, and returns how many tiles it has: 0 at the end.
  /// Has barriers; overwrites the batch kQueueBatches before.
  __device__ int32_t find() {
    if (warp_uniform(queue_.batch == 0)) return 0;
    int32_t found = 0;
    while (found == 0 && warp_uniform(queue_.next_column >= 0)) found = refill_columns();
    if (warp_uniform(found == 0)) found = refill_contiguous();
    queued_ += static_cast<uint32_t>(found);
    return found;
  }

  __device__ const RowTile& row_tile() const { return queue_.row_tile; }
  __device__ const HeadKeys& head() const { return heads_[queue_.row_tile.head_idx]; }
  __device__ const PairTile& operator[](uint32_t tile) const { return queue_[tile]; }

 private:
  // ---- Columns

  /// Looks at the next kBatchTiles column tiles and queues those that are not empty.
  __device__ int32_t refill_columns() {
    const HeadKeys& head = this->head();
    const int32_t first = queue_.next_column;
    // 0. The list's end, or its first entry past all rows.
    const int32_t last_visible =
        RowBlock(lengths_, queue_.row_tile.row_block + queue_.row_tile.num_row_blocks - 1)
            .last_position;
    if (warp_uniform(first >= head.num_columns || head.columns[first] > last_visible)) {
      Group::sync();  // All have read next_column.
      if (Group::thread() == 0) queue_.next_column = -1;
      Group::sync();  // It says that there are none left.
      return 0;
    }
    // 1. A few tiles for each warp.
    const int warp = Group::warp();
#pragma unroll 1
    for (int i = warp; warp_uniform(i < kBatchTiles); i += Group::kWarps) {
      const PairTile tile = column_tile(head, first + i * kBlock);
      if (lane_index() == 0) queue_[queued_ + i] = tile;
    }
    Group::sync();  // The batch is complete.

    // 2. Remove empty tiles and those before the first one wanted.
    if (warp_uniform(warp == 0)) {
      const int i = lane_index() % kBatchTiles;
      const PairTile tile = queue_[queued_ + i];
      const uint32_t present =
          __ballot_sync(kFullWarp, lane_index() < kBatchTiles && tile.loaded() != 0);
      const int32_t rank = __popc(present & lanes_below());
      const int32_t skipped = min(queue_.to_skip, __popc(present));
      const int32_t count = min(__popc(present) - skipped, queue_.wanted);
      __syncwarp();  // All have read.
      if ((present >> lane_index() & 1) != 0 && rank >= skipped && rank - skipped < count) {
        queue_[queued_ + rank - skipped] = tile;
      }
      if (lane_index() == 0) {
        queue_.next_column = first + kBatchTiles * kBlock;
        queue_.to_skip -= skipped;
        queue_.wanted -= count;
        queue_.batch = count;
      }
    }
    Group::sync();  // The batch is visible to all threads.
    return queue_.batch;
  }

  /// The column tile of entries [begin, begin + 64), found by a warp.
  __device__ PairTile column_tile(const HeadKeys& head, int32_t begin) const {
    PairTile tile{.begin = begin, .columns = 1, .mask = {0, 0}, .whole = 0, .keep = {0, 0}};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int32_t entry = begin + half * kWarpThreads + lane_index();
      const bool exists = entry < head.num_columns;
      const int32_t column = exists ? head.columns[entry] : 0;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if (warp_uniform(r >= queue_.row_tile.num_row_blocks)) continue;
        const RowBlock row(lengths_, queue_.row_tile.row_block + r);
        const bool kept = exists && column <= row.last_position && !is_in_run(head, row, column);
        const uint64_t bits = __ballot_sync(kFullWarp, kept);
        tile.keep[r] |= bits << (half * kWarpThreads);
        if (__any_sync(kFullWarp, kept && column > row.first_position)) {
          tile.mask[r] = kMaskCausal;
        }
      }
    }
    return tile;
  }

  // ---- Contiguous tiles

  __device__ int32_t refill_contiguous() {
    Group::sync();  // All have read the size of the previous batch.
    if (warp_uniform(Group::warp() == 0)) {
      skip_unwanted();
      merge_walks();
    }
    Group::sync();  // The batch is visible to all threads.
    return queue_.batch;
  }

  /// Only the tiles of a single row block are split among items, so nothing is merged here. On a
  /// list that does not ascend (lists are untrusted) the check restarts in each split.
  __device__ void skip_unwanted() {
    if (warp_uniform(queue_.to_skip > 0)) {
      if (lane_index() == 0) queue_.walk[0].skip(queue_.to_skip);
      __syncwarp();  // The walk is where it should be, and to_skip is read.
      if (lane_index() == 0) queue_.to_skip = 0;
    }
    __syncwarp();  // It is 0 for all.
  }

  /// Queues the next kBatchTiles tiles of both walks, merged. One warp calls it: lane 16 r + i
  /// finds tile i of row block r.
  __device__ void merge_walks() {
    const int lane = lane_index();
    const int r = lane / kBatchTiles, i = lane % kBatchTiles;
    const auto of_half = [](uint32_t bits, int half) {
      return bits >> (half * kBatchTiles) & ((1u << kBatchTiles) - 1);
    };
    // 1. A tile for each lane, up to the first that does not ascend: block lists are untrusted.
    KeyTiles walk = queue_.walk[r];
    KeyTile tile;
    walk.skip(i);
    const bool found = walk.next(tile);
    const int32_t before = __shfl_up_sync(kFullWarp, tile.begin, 1, kBatchTiles);
    const bool ascends = found && tile.begin > (i == 0 ? queue_.last_begin[r] : before);
    const uint32_t descents = ~__ballot_sync(kFullWarp, ascends);
    const int own_count = first_bit(of_half(descents, r));
    const int other_count = first_bit(of_half(descents, 1 - r));
    const bool valid = i < own_count;

    // 2. Its rank among the tiles of both walks.
    const int others_below = count_below(tile.begin, 1 - r, other_count);
    const int twin = (1 - r) * kBatchTiles + min(others_below, kBatchTiles - 1);
    const bool same = __shfl_sync(kFullWarp, tile.begin, twin) == tile.begin && valid &&
                      others_below < other_count;
    const uint32_t pairs = of_half(__ballot_sync(kFullWarp, same), r);
    const int rank = i + others_below - __popc(pairs & ((1u << i) - 1));
    const uint64_t twin_keep = __shfl_sync(kFullWarp, tile.keep, twin);
    const int twin_mask = __shfl_sync(kFullWarp, int{tile.mask}, twin);

    // 3. Queue the first ones; the first row block's lane queues a tile that both have.
    const int32_t limit = min(kBatchTiles, queue_.wanted);
    const bool taken = valid && rank < limit;
    const bool writes = taken && !(same && r == 1);
    const bool others_whole =
        queue_.row_tile.num_row_blocks == 1 || (same && PairTile::is_whole(twin_keep, twin_mask));
    if (writes) {
      PairTile& to = queue_[queued_ + rank];
      to.begin = tile.begin;
      to.columns = 0;
      to.whole = others_whole && PairTile::is_whole(tile.keep, tile.mask) ? 1 : 0;
      to.mask[r] = tile.mask;
      to.mask[1 - r] = same ? static_cast<uint8_t>(twin_mask) : uint8_t{0};
      to.keep[r] = tile.keep;
      to.keep[1 - r] = same ? twin_keep : 0;
    }
    const int batch = __popc(__ballot_sync(kFullWarp, writes));
    const uint32_t all_taken = __ballot_sync(kFullWarp, taken);
    __syncwarp();  // All have read the walks.
    if (i + 1 == __popc(of_half(all_taken, r))) {
      queue_.walk[r] = walk;
      queue_.last_begin[r] = tile.begin;
    }
    if (lane == 0) {
      queue_.wanted -= batch;
      queue_.batch = batch;
    }
  }

  /// Number of the lowest set bit, at most kBatchTiles.
  __device__ static int first_bit(uint32_t bits) {
    return bits == 0 ? kBatchTiles : __ffs(static_cast<int>(bits)) - 1;
  }

  /// How many of the first `count` tiles of row block `r` begin before this lane's.
  __device__ static int count_below(int32_t begin, int r, int count) {
    int below = 0;
#pragma unroll
    for (int step = kBatchTiles; step > 0; step /= 2) {
      const int probe = min(below + step, kBatchTiles) - 1;
      const int32_t other = __shfl_sync(kFullWarp, begin, r * kBatchTiles + probe);
      if (below + step <= count && other < begin) below += step;
    }
    return below;
  }

  Queue& queue_;
  const HeadKeys* const heads_;
  const Lengths& lengths_;
  uint32_t queued_;
};

// ---- Masks --------------------------------------------------------------------------------------

struct KeyMask {
  uint64_t keep;           // Keys of the tile, from bit 0 on.
  int32_t first_key;       // Key of bit 0; its entry if it is a column tile.
  bool contiguous;         // Otherwise keys are entries of the column list.
  const int32_t* columns;  // The list, if some kept entry is after some row; else null.
  int32_t sink;            // Window: rows before dense_from attend keys before sink and ...
  int32_t window;          // ... the last `window` keys up to their own. INT32_MAX: no window.
  int32_t dense_from;

  /// The mask of a tile for row block `r` of its row tile.
  __device__ static KeyMask of(const PairTile& tile, int r, const HeadKeys& head,
                               const Lengths& lengths) {
    const bool by_column = tile.columns != 0 && (tile.mask[r] & kMaskCausal) != 0;
    const bool windowed = (tile.mask[r] & kMaskWindow) != 0;
    return {.keep = tile.keep[r],
            .first_key = tile.begin,
            .contiguous = tile.columns == 0,
            .columns = by_column ? head.columns : nullptr,
            .sink = windowed ? head.sink : 0,
            .window = windowed ? head.window : INT32_MAX,
            .dense_from = windowed ? minference::dense_from(head, lengths) : 0};
  }

  /// Bits of the keys that the row at `position` attends.
  __device__ uint64_t attended(int32_t position) const {
    if (!contiguous) return columns == nullptr ? keep : keep & lowest(count_columns(position));
    uint64_t bits = keep & lowest(position - first_key + 1);
    if (window != INT32_MAX && position < dense_from) {
      bits &= ~lowest(position - window + 1 - first_key) | lowest(sink - first_key);
    }
    return bits;
  }

 private:
  __device__ static uint64_t lowest(int32_t count) { return count <= 0 ? 0 : low_bits(count); }

  /// Number of columns up to `position`, counted up to the last one kept: later ones need not
  /// exist.
  __device__ int32_t count_columns(int32_t position) const {
    int32_t lo = 0, hi = 64 - __clzll(static_cast<long long>(keep));
    while (lo < hi) {
      const int32_t mid = (lo + hi) / 2;
      if (columns[first_key + mid] <= position) {
        lo = mid + 1;
      } else {
        hi = mid;
      }
    }
    return lo;
  }
};

}  // namespace minference::device
