// The number of key tiles (core/key_tiles.h) of many neighbouring row blocks of a head. A block of
// threads counts them together, one row block each.
//
// From the first row block that a run reaches, each further row block has one more tile of it,
// until the run is complete (core/key_tiles.h). So runs are counted for all row blocks at once:
// each adds +1 where its growth begins and -1 where it ends, and two prefix sums over the row
// blocks give the counts. That takes a few operations per run instead of a search per row block.
// Columns take a binary search over the runs for every entry that is looked at, mostly one in 64.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/key_tiles.h"
#include "cuda/device/thread_group.h"

namespace minference::device {

template <typename Group>
struct RowBlockStorage {
  ScanStorage<Group, Sum<int32_t>> scan;
  int32_t growth[Group::kThreads];  // Change in the number of growing runs at a row block.
};

/// Tiles of the runs in row block `first` + thread.
template <typename Group>
__device__ inline int32_t count_tiles_of_runs(RowBlockStorage<Group>& storage, const HeadKeys& head,
                                              const Lengths& lengths, int32_t first) {
  const auto scan = [&](int32_t value) { return exclusive_scan<Group>(storage.scan, value); };
  storage.growth[Group::thread()] = 0;
  Group::sync();       // All are zero.
  int32_t before = 0;  // Tiles in row block first - 1.
  // If `head` is in device memory, it would be read again after every atomic.
  const Run* const runs = head.runs;
  const int32_t num_runs = head.num_runs;
  for (int32_t i = Group::thread(); i < num_runs; i += Group::kThreads) {
    const RunGrowth run = run_growth(runs[i], lengths);
    const int32_t begin = max_of(run.first - first, 0);
    const int32_t end = run.first - first + run.full;
    if (begin >= Group::kThreads) break;  // All runs farther away begin later still.
    before += count_run_tiles(run, first - 1);
    if (begin < end) {
      atomicAdd(&storage.growth[begin], 1);
      if (end < Group::kThreads) atomicAdd(&storage.growth[end], -1);
    }
  }
  const int32_t base = scan(before).total;  // Its barriers complete `growth`.
  const int32_t change = storage.growth[Group::thread()];
  const int32_t growing = scan(change).exclusive + change;
  return base + scan(growing).exclusive + growing;
}

/// Tiles of row block `first` + thread; 0 if there is no such row block. `head` is the same in all
/// threads. The storage may be used again at once.
template <typename Group>
__device__ inline int32_t count_tiles_of_row_blocks(RowBlockStorage<Group>& storage,
                                                    const HeadKeys& head, const Lengths& lengths,
                                                    int32_t first) {
  int32_t count = 0;
  if (head.form == Form::kRuns) {
    count = count_tiles_of_runs<Group>(storage, head, lengths, first);
  }
  if (Group::thread() >= lengths.row_blocks() - first) return 0;
  const RowBlock row(lengths, first + Group::thread());
  switch (head.form) {
    case Form::kRuns:
      return count + count_column_tiles(head, row);
    case Form::kBlocks:
      return count_block_tiles(head, row);
    default:
      return count_shape_tiles(head, lengths, row);
  }
}

}  // namespace minference::device
