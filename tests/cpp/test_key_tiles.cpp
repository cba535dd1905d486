// KeyTiles against the set definition of every pattern, exhaustively at small sizes: the keys of a
// row block's tiles, after their masks, are exactly those that each row attends, each once.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "attended_keys.h"
#include "check.h"
#include "core/key_tiles.h"
#include "core/runs.h"

namespace {

using namespace minference;
using test::attends;
using test::in_window_pattern;

/// Keys of a tile's kept entries.
std::vector<int32_t> keys_of(const KeyTile& tile, const HeadKeys& head) {
  std::vector<int32_t> keys;
  for (int32_t t = 0; t < tile.count; ++t) {
    if (tile.keep >> t & 1)
      keys.push_back(tile.columns ? head.columns[tile.begin + t] : tile.begin + t);
  }
  return keys;
}

/// Whether a kernel attends a kept key: it does, unless a mask that it was told to apply removes
/// the key.
bool survives_masks(const KeyTile& tile, const HeadKeys& head, const Lengths& lengths,
                    int32_t position, int32_t key) {
  if ((tile.mask & kMaskCausal) != 0 && key > position) return false;
  return (tile.mask & kMaskWindow) == 0 || position >= dense_from(head, lengths) ||
         in_window_pattern(head, position, key);
}

struct RowRange {
  int32_t first;
  int32_t last;  // The last row of the row block that exists.
};

RowRange rows_of(const Lengths& lengths, int32_t row_block) {
  return {row_block * 64, std::min(row_block * 64 + 64, lengths.seqlen_q) - 1};
}

/// A mask must be set if and only if some row needs it; and some row must attend some key.
void check_masks(const KeyTile& tile, const HeadKeys& head, const Lengths& lengths,
                 const RowRange& rows) {
  bool causal = false, window = false, useful = false;
  for (const int32_t key : keys_of(tile, head)) {
    for (int32_t row = rows.first; row <= rows.last; ++row) {
      const int32_t position = row + lengths.offset();
      causal |= key > position;
      const bool attended = attends(head, lengths, row, key);
      window |= key <= position && !attended;
      useful |= attended;
    }
  }
  CHECK(useful, "nobody attends the tile at", tile.begin, "rows", rows.first);
  CHECK(((tile.mask & kMaskCausal) != 0) == causal, "tile at", tile.begin, "rows", rows.first);
  CHECK(((tile.mask & kMaskWindow) != 0) == window, "tile at", tile.begin, "rows", rows.first);
}

void check_form(const KeyTile& tile, const HeadKeys& head, const Lengths& lengths,
                int32_t row_block) {
  CHECK(tile.count >= 1 && tile.count <= kBlock && tile.keep != 0, "count", tile.count);
  CHECK((tile.keep & ~low_bits(tile.count)) == 0);
  if (tile.columns || head.form != Form::kRuns) {
    CHECK(tile.begin % kBlock == 0, "begin", tile.begin);
  } else {
    // Tiles of a run begin in steps of 64 back from its near end, or at key 0.
    const int32_t end = 64 * row_block + 64 + lengths.offset();
    const bool on_grid = std::any_of(head.runs, head.runs + head.num_runs, [&](const Run& run) {
      const int32_t near = end - run.lo;
      return tile.begin < near && (tile.begin == 0 || (near - tile.begin) % kBlock == 0);
    });
    CHECK(on_grid, "begin", tile.begin, "end", end);
  }
  if (!tile.columns) CHECK(tile.keep == low_bits(tile.count));
}

/// Skipping the column tiles, and any number of others, must leave exactly the rest.
void check_skipping(const HeadKeys& head, const Lengths& lengths, int32_t row_block,
                    const std::vector<KeyTile>& tiles) {
  const auto is_contiguous = [](const KeyTile& tile) { return !tile.columns; };
  const auto first = std::ranges::find_if(tiles, is_contiguous) - tiles.begin();
  const auto left = static_cast<int32_t>(std::ssize(tiles) - first);
  for (int32_t skipped = 0; skipped <= left + 1; ++skipped) {
    KeyTiles walk(head, lengths, row_block);
    walk.skip_columns();
    walk.skip(skipped);
    KeyTile tile;
    const bool found = walk.next(tile);
    CHECK(found == (skipped < left), "skipped", skipped, "of", left);
    if (!found || skipped >= left) continue;
    const KeyTile& expected = tiles[static_cast<std::size_t>(first + skipped)];
    CHECK(tile.begin == expected.begin && tile.count == expected.count &&
              tile.keep == expected.keep && tile.mask == expected.mask,
          "skipped", skipped, "of", left);
  }
}

void check_row_block(const HeadKeys& head, const Lengths& lengths, int32_t row_block) {
  const RowRange rows = rows_of(lengths, row_block);
  std::vector<int> seen(static_cast<std::size_t>(lengths.seqlen_k), 0);
  std::vector<KeyTile> tiles;
  KeyTiles walk(head, lengths, row_block);
  for (KeyTile tile; walk.next(tile);) tiles.push_back(tile);
  KeyTile after_end;
  CHECK(!walk.next(after_end) && !walk.next(after_end));

  int32_t previous_key = -1;
  bool previous_columns = true;
  std::vector<char> reached(seen.size() * 64, 0);  // [row of the block][key]
  const auto place = [&](int32_t row, int32_t key) {
    return static_cast<std::size_t>(int64_t{row - rows.first} * lengths.seqlen_k + key);
  };
  for (const KeyTile& tile : tiles) {
    check_form(tile, head, lengths, row_block);
    check_masks(tile, head, lengths, rows);
    CHECK(previous_columns || !tile.columns, "a column tile after a contiguous one");
    if (previous_columns && !tile.columns) previous_key = -1;
    previous_columns = tile.columns;
    for (const int32_t key : keys_of(tile, head)) {
      CHECK(key > previous_key, "keys descend at", key);
      previous_key = key;
      CHECK(key >= 0 && key < lengths.seqlen_k, "key", key);
      CHECK(++seen[static_cast<std::size_t>(key)] == 1, "key twice:", key);
      for (int32_t row = rows.first; row <= rows.last; ++row) {
        const bool attended = survives_masks(tile, head, lengths, row + lengths.offset(), key);
        reached[place(row, key)] = attended;
      }
    }
  }
  for (int32_t row = rows.first; row <= rows.last; ++row) {
    for (int32_t key = 0; key < lengths.seqlen_k; ++key) {
      const bool got = reached[place(row, key)] != 0;
      CHECK(got == attends(head, lengths, row, key), "form", static_cast<int>(head.form), "row",
            row, "key", key, "seqlen_q", lengths.seqlen_q, "seqlen_k", lengths.seqlen_k);
    }
  }
  CHECK(count_key_tiles(head, lengths, row_block) == static_cast<int64_t>(tiles.size()));
  check_skipping(head, lengths, row_block, tiles);
}

void check_head(const HeadKeys& head, const Lengths& lengths) {
  for (int32_t r = 0; r < lengths.row_blocks(); ++r) check_row_block(head, lengths, r);
}

/// Calls body for pairs of odd lengths with seqlen_q <= seqlen_k.
template <typename Body>
void for_each_lengths(const Body& body) {
  constexpr int32_t kLengths[] = {1, 2, 37, 63, 64, 65, 100, 127, 128, 129, 191, 193, 200};
  for (const int32_t seqlen_k : kLengths) {
    for (const int32_t seqlen_q : kLengths) {
      if (seqlen_q <= seqlen_k) body(Lengths{.seqlen_q = seqlen_q, .seqlen_k = seqlen_k});
    }
  }
}

void test_window_patterns(const Lengths& lengths) {
  check_head({.dense_rows = kAllRows}, lengths);
  constexpr int32_t kSizes[] = {0, 1, 63, 64, 65, 130, INT32_MAX};
  for (const int32_t sink : kSizes) {
    for (const int32_t window : kSizes) {
      check_head({.sink = sink, .window = window}, lengths);
      for (const int32_t last : {0, 1, 64, 70, INT32_MAX}) {
        check_head({.sink = sink, .window = window, .dense_rows = last}, lengths);
      }
    }
  }
}

std::vector<int32_t> random_subset(std::mt19937& random, int32_t limit, double share) {
  std::vector<int32_t> subset;
  std::bernoulli_distribution chosen(share);
  for (int32_t i = 0; i < limit; ++i) {
    if (chosen(random)) subset.push_back(i);
  }
  return subset;
}

void test_vertical_slash(const Lengths& lengths, std::mt19937& random) {
  for (const double column_share : {0.0, 0.05, 0.4, 1.0}) {
    for (const double distance_share : {0.0, 0.01, 0.05, 1.0}) {
      const auto columns = random_subset(random, lengths.seqlen_k, column_share);
      const auto distances = random_subset(random, lengths.seqlen_k, distance_share);
      std::vector<Run> runs(static_cast<std::size_t>(lengths.seqlen_k));
      const int32_t num_runs =
          plan_runs(distances.data(), static_cast<int64_t>(distances.size()), runs.data());
      check_head({.form = Form::kRuns,
                  .runs = runs.data(),
                  .columns = columns.data(),
                  .num_runs = num_runs,
                  .num_columns = static_cast<int32_t>(columns.size())},
                 lengths);
    }
  }
}

/// Runs that no plan makes, but a caller may: touching ones, and ends far past the first key.
void test_foreign_runs(const Lengths& lengths) {
  const std::vector<int32_t> columns = {0};
  const std::vector<std::vector<Run>> lists = {
      {{0, 64}, {64, 128}, {128, 192}}, {{3, 67}, {67, 259}}, {{5, 5 + 64 * 100}}, {{0, 1 << 30}}};
  for (std::vector<Run> runs : lists) {
    while (!runs.empty() && runs.back().lo >= lengths.seqlen_k) runs.pop_back();
    check_head({.form = Form::kRuns,
                .runs = runs.data(),
                .columns = columns.data(),
                .num_runs = static_cast<int32_t>(runs.size()),
                .num_columns = 1},
               lengths);
  }
}

void test_block_sparse(const Lengths& lengths, std::mt19937& random) {
  for (const double share : {0.0, 0.5, 1.0}) {
    // Lists lie in wider rows than they are long, with -1 at the end.
    const int32_t max_blocks = lengths.key_blocks() + 1;
    const int64_t stride = max_blocks + 3;
    std::vector<int32_t> blocks(static_cast<std::size_t>(stride * lengths.row_blocks()), 0);
    for (int32_t r = 0; r < lengths.row_blocks(); ++r) {
      auto list = random_subset(random, lengths.key_blocks(), share);
      list.resize(static_cast<std::size_t>(max_blocks), -1);
      std::copy(list.begin(), list.end(), blocks.begin() + r * stride);
    }
    check_head({.form = Form::kBlocks,
                .blocks = blocks.data(),
                .block_stride = stride,
                .max_blocks = max_blocks},
               lengths);
  }
}

/// Positions near the largest length that the interface admits: arithmetic must not overflow.
void test_long_sequences() {
  constexpr int32_t kLongest = 1 << 30;
  const Lengths lengths{.seqlen_q = 64 * 3 + 1, .seqlen_k = kLongest};
  const std::vector<Run> runs = {{0, 128}, {kLongest - 1, kLongest - 1 + 128}};
  const std::vector<int32_t> columns = {0, kLongest - 1};
  const HeadKeys vertical_slash{.form = Form::kRuns,
                                .runs = runs.data(),
                                .columns = columns.data(),
                                .num_runs = 2,
                                .num_columns = 2};
  const HeadKeys a_shape{.sink = 4, .window = 100};
  for (const HeadKeys& head : {vertical_slash, a_shape}) {
    for (int32_t r = 0; r < lengths.row_blocks(); ++r) {
      const int64_t count = count_key_tiles(head, lengths, r);
      CHECK(count >= 2 && count <= 5, "tiles", count);
    }
  }
}

}  // namespace

int main() {
  std::mt19937 random(1);
  for_each_lengths([&](const Lengths& lengths) {
    test_window_patterns(lengths);
    test_vertical_slash(lengths, random);
    test_foreign_runs(lengths);
    test_block_sparse(lengths, random);
  });
  test_long_sequences();
  CHECK(!KeyTiles().next(*std::vector<KeyTile>(1).data()));
  return minference::test::finish();
}
