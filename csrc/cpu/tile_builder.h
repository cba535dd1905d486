// From key tiles to loaded tiles: merges the KeyTiles of an item's row blocks into 256-key tiles,
// so that keys which several row blocks attend are read, converted and packed once.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/key_tiles.h"
#include "core/kv_rows.h"
#include "cpu/isa/kernels.h"

namespace minference::cpu {

class TileBuilder {
 public:
  /// Streams are the row blocks [first_row_block, first_row_block + num_streams) of one head. keys,
  /// values: its KV head's, whose elements have `element_bytes`.
  TileBuilder(const HeadKeys& head, const Lengths& lengths, int32_t first_row_block,
              int32_t num_streams, const HeadRows<std::byte>& keys,
              const HeadRows<std::byte>& values, int64_t element_bytes);

  /// Fills the next tile: slots, positions, row pointers. False when all keys have been given out.
  bool next(Tile& tile);

 private:
  /// One row block's place in its sequence of key tiles.
  struct Stream {
    KeyTiles tiles;
    KeyTile current;
    bool active = false;

    void advance() { active = tiles.next(current); }
  };

  bool add_column_slot(Tile& tile);
  bool next_columns();
  bool add_contiguous_slot(Tile& tile);
  void set_key(Tile& tile, int32_t key, int32_t position) const;
  static void finish_slot(Tile& tile, Slot& slot);

  const HeadKeys& head_;
  HeadRows<std::byte> keys_;
  HeadRows<std::byte> values_;
  int64_t value_stride_;  // Elements.
  int32_t num_streams_;
  Stream streams_[kMaxStreams];

  // The column tile being given out: entries [columns_begin_, + 64) of the column list.
  int32_t columns_begin_ = 0;
  uint64_t columns_left_ = 0;  // Union over the streams, not yet given out.
  uint64_t columns_keep_[kMaxStreams] = {};
  bool columns_masked_ = false;
};

}  // namespace minference::cpu
