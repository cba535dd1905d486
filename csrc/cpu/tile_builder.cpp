// Merging of key tiles: see tile_builder.h.
// SPDX-License-Identifier: Apache-2.0
#include "cpu/tile_builder.h"

#include <algorithm>
#include <bit>

namespace minference::cpu {

TileBuilder::TileBuilder(const HeadKeys& head, const Lengths& lengths, int32_t first_row_block,
                         int32_t num_streams, const HeadRows<std::byte>& keys,
                         const HeadRows<std::byte>& values, int64_t element_bytes)
    : head_(head),
      keys_(keys),
      values_(values),
      value_stride_(values.stride / element_bytes),
      num_streams_(num_streams) {
  for (int s = 0; s < num_streams; ++s) {
    streams_[s].tiles = KeyTiles(head, lengths, first_row_block + s);
    streams_[s].advance();
  }
}

bool TileBuilder::next(Tile& tile) {
  tile.num_slots = 0;
  tile.value_stride = value_stride_;
  while (tile.num_slots < kTileSlots && (add_column_slot(tile) || add_contiguous_slot(tile))) {
  }
  return tile.num_slots > 0;
}

/// Up to 64 of the columns that some stream attends, in one slot.
bool TileBuilder::add_column_slot(Tile& tile) {
  Slot& slot = tile.slots[tile.num_slots];
  slot = Slot{};
  while (slot.count < kBlock && (columns_left_ != 0 || next_columns())) {
    const int entry = std::countr_zero(columns_left_);
    columns_left_ &= columns_left_ - 1;
    for (int s = 0; s < num_streams_; ++s) {
      slot.keep[s] |= (columns_keep_[s] >> entry & 1) << slot.count;
    }
    slot.masked |= columns_masked_;
    set_key(tile, tile.num_slots * kBlock + slot.count, head_.columns[columns_begin_ + entry]);
    ++slot.count;
  }
  if (slot.count == 0) return false;
  finish_slot(tile, slot);
  return true;
}

/// Moves to the next column tile of any stream. Streams step through the list on one grid of 64.
bool TileBuilder::next_columns() {
  int32_t begin = INT32_MAX;
  for (int s = 0; s < num_streams_; ++s) {
    const Stream& stream = streams_[s];
    if (stream.active && stream.current.columns) begin = std::min(begin, stream.current.begin);
  }
  if (begin == INT32_MAX) return false;
  columns_begin_ = begin;
  columns_masked_ = false;
  for (int s = 0; s < num_streams_; ++s) {
    Stream& stream = streams_[s];
    columns_keep_[s] = 0;
    if (!stream.active || !stream.current.columns || stream.current.begin != begin) continue;
    columns_keep_[s] = stream.current.keep;
    columns_left_ |= stream.current.keep;
    columns_masked_ |= stream.current.mask != kMaskNone;
    stream.advance();
  }
  return true;
}

/// The contiguous tile with the smallest first key, for all streams that attend it.
bool TileBuilder::add_contiguous_slot(Tile& tile) {
  int32_t begin = INT32_MAX;
  for (int s = 0; s < num_streams_; ++s) {
    if (streams_[s].active) begin = std::min(begin, streams_[s].current.begin);
  }
  if (begin == INT32_MAX) return false;
  Slot& slot = tile.slots[tile.num_slots];
  slot = Slot{};
  slot.contiguous = true;
  for (int s = 0; s < num_streams_; ++s) {
    Stream& stream = streams_[s];
    if (!stream.active || stream.current.begin != begin) continue;
    slot.keep[s] = stream.current.keep;
    slot.count = std::max(slot.count, stream.current.count);
    slot.masked |= stream.current.mask != kMaskNone;
    stream.advance();
  }
  for (int t = 0; t < slot.count; ++t) set_key(tile, tile.num_slots * kBlock + t, begin + t);
  finish_slot(tile, slot);
  return true;
}

void TileBuilder::set_key(Tile& tile, int32_t key, int32_t position) const {
  tile.position[key] = position;
  tile.key_row[key] = keys_.row(position);
  tile.value_row[key] = values_.row(position);
}

/// Pads to a multiple of 4 with keys that no row sees, and notes which streams attend the slot.
void TileBuilder::finish_slot(Tile& tile, Slot& slot) {
  const uint64_t all = low_bits(slot.count);
  for (int s = 0; s < kMaxStreams; ++s) {
    if (slot.keep[s] == 0) continue;
    slot.streams |= static_cast<uint8_t>(1 << s);
    slot.masked |= slot.keep[s] != all;
  }
  for (int t = slot.count; t % 4 != 0; ++t) {
    const int key = tile.num_slots * kBlock + t;
    tile.position[key] = INT32_MAX;
    tile.key_row[key] = kZeroRow;
    tile.value_row[key] = kZeroRow;
    slot.masked = true;
  }
  ++tile.num_slots;
}

}  // namespace minference::cpu
