// Which of up to 64 keys that were loaded together a row attends.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/key_tiles.h"
#include "cuda/device/tile_walk.h"

namespace minference::device {

struct KeyMask {
  uint64_t keep;           // Of the keys, from bit 0 on.
  int32_t first_key;       // Key of bit 0; of a column tile, its entry.
  bool contiguous;         // Else entries of the column list.
  const int32_t* columns;  // The list, if some entry that is kept is after some row; else null.
  int32_t sink;            // Window: rows before dense_from attend keys before sink, ...
  int32_t window;          // ... and as many up to their own. INT32_MAX: no window.
  int32_t dense_from;

  /// Of a tile, for row block `r` of its row tile.
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

  /// Columns up to `position`, of those up to the last one kept: no more need exist.
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
