// Tile counts, key sets and the work table on emulated threads, against the host's iteration over
// core/key_tiles.h: every pattern, odd lengths, spoilt lists.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "check.h"
#include "core/key_tiles.h"
#include "cuda/common/attention_launch.h"
#include "cuda/common/stages.h"
#include "device_array.h"
#include "random_heads.h"
#include "simt/simt.h"

namespace {

using namespace minference;
using test::DeviceArray;
using test::RandomHeads;
using test::RandomListSizes;

Shape make_shape(int32_t batch, int32_t num_heads_q, int32_t num_heads_kv, const Lengths& lengths) {
  return {.batch = batch,
          .num_heads_q = num_heads_q,
          .num_heads_kv = num_heads_kv,
          .head_dim = 64,
          .lengths = lengths};
}

/// Sections of `kv_heads` KV heads.
cuda::SectionLimits sections_of(const Shape& shape, int32_t kv_heads) {
  return {.bytes = int64_t{2} * kv_heads * shape.lengths.seqlen_k * shape.head_dim * 2,
          .min_row_tiles = 0};
}
constexpr int32_t kOneSection = INT32_MAX;  // One section for all KV heads.

int32_t section(const Shape& shape, const cuda::WorkItem& item, int32_t kv_heads) {
  return item.head / shape.group_size() / kv_heads;
}

/// Number of tiles that the iterator yields, [batch * num_heads_q, row_blocks].
std::vector<int32_t> iterated_tiles(const std::vector<HeadKeys>& heads, const Lengths& lengths) {
  std::vector<int32_t> tiles;
  for (const HeadKeys& head : heads) {
    for (int32_t r = 0; r < lengths.row_blocks(); ++r) {
      tiles.push_back(static_cast<int32_t>(count_key_tiles(head, lengths, r)));
    }
  }
  return tiles;
}

void check_key_sets(const Shape& shape, const RandomHeads& heads,
                    const DeviceArray<HeadKeys>& prepared) {
  const std::vector<HeadKeys> got = prepared.host(), expected = heads.expected();
  for (std::size_t i = 0; i < got.size(); ++i) {
    const HeadKeys &a = got[i], &b = expected[i];
    const bool same_pattern = a.form == b.form && a.sink == b.sink && a.window == b.window &&
                              a.dense_rows == b.dense_rows;
    const bool same_lists = a.columns == b.columns && a.runs == b.runs && a.blocks == b.blocks &&
                            a.block_stride == b.block_stride && a.max_blocks == b.max_blocks;
    CHECK(same_pattern && same_lists, "head", i, "form", static_cast<int>(b.form));
    CHECK(a.num_columns == b.num_columns && a.num_runs == b.num_runs, "head", i, "columns",
          a.num_columns, b.num_columns, "runs", a.num_runs, b.num_runs, "seqlen_k",
          shape.lengths.seqlen_k);
  }
}

void check_totals(const Shape& shape, const RandomHeads& heads,
                  const std::vector<int32_t>& expected) {
  // Heads before batches, to check that strides are used.
  const DeviceArray<int64_t> tiles(static_cast<std::size_t>(shape.batch * shape.num_heads_q));
  cuda::count_key_tiles({.shape = shape,
                         .patterns = heads.patterns,
                         .index = heads.index(),
                         .tiles = {.data = tiles.data(),
                                   .batch_stride_bytes = 8,
                                   .head_stride_bytes = int64_t{8} * shape.batch,
                                   .size = 1}},
                        Executor{});
  const std::vector<int64_t> got = tiles.host();
  const auto row_blocks = shape.lengths.row_blocks();
  for (int32_t i = 0; i < shape.batch * shape.num_heads_q; ++i) {
    const auto begin = expected.begin() + int64_t{i} * row_blocks;
    const int64_t total = std::accumulate(begin, begin + row_blocks, int64_t{0});
    const int32_t batch = i / shape.num_heads_q, head = i % shape.num_heads_q;
    const int64_t counted = got[static_cast<std::size_t>(int64_t{head} * shape.batch + batch)];
    CHECK(counted == total, "head", i, "got", counted, "expected", total, "seqlen_q",
          shape.lengths.seqlen_q, "seqlen_k", shape.lengths.seqlen_k);
  }
}

/// Every item occurs once, by section, longest first, ties by (batch, KV head, row block, head in
/// group).
void check_order(const Shape& shape, const std::vector<cuda::WorkItem>& items,
                 const std::vector<int32_t>& tiles, int32_t section_kv_heads) {
  const int32_t row_blocks = shape.lengths.row_blocks();
  std::vector<cuda::WorkItem> expected;
  const int32_t group = shape.group_size();
  for (int32_t kv = 0; kv < shape.batch * shape.num_heads_kv; ++kv) {
    for (int32_t r = 0; r < row_blocks; ++r) {
      for (int32_t g = 0; g < group; ++g) expected.push_back({kv * group + g, r});
    }
  }
  const auto key_of = [&](const cuda::WorkItem& item) {
    return std::pair(
        section(shape, item, section_kv_heads),
        -tiles[static_cast<std::size_t>(int64_t{item.head} * row_blocks + item.row_block)]);
  };
  std::ranges::stable_sort(expected, std::ranges::less{}, key_of);
  const bool equal = std::ranges::equal(items, expected, [](const auto& a, const auto& b) {
    return a.head == b.head && a.row_block == b.row_block;
  });
  CHECK(equal, "items", items.size(), "seqlen_k", shape.lengths.seqlen_k);
}

struct Together {
  int32_t tiles;         // Tiles that two row blocks attend together.
  int32_t more_columns;  // Column tiles of both beyond those of the one with more.
};

Together tiles_together(const HeadKeys& head, const Lengths& lengths, int32_t row_block) {
  std::set<int32_t> columns, contiguous;
  int32_t most_columns = 0;
  for (int32_t r = row_block; r < row_block + 2; ++r) {
    KeyTiles walk(head, lengths, r);
    int32_t num_columns = 0;
    for (KeyTile tile; walk.next(tile);) {
      (tile.columns ? columns : contiguous).insert(tile.begin);
      if (tile.columns) ++num_columns;
    }
    most_columns = std::max(most_columns, num_columns);
  }
  const auto num_columns = static_cast<int32_t>(columns.size());
  return {num_columns + static_cast<int32_t>(contiguous.size()), num_columns - most_columns};
}

/// The weight by which an item is ordered.
int32_t weight_of(cuda::RowBlockTiles tiles) {
  return tiles.is_joined() ? 0 : std::min((tiles.is_pair() ? 2 : 1) * tiles.count() + 1, 0xffff);
}

/// Longest first within each section; joined items last.
void check_longest_first(const cuda::WorkTable& table, const Shape& shape,
                         int32_t section_kv_heads) {
  auto previous = std::pair(INT32_MIN, INT32_MIN);
  for (int64_t i = 0; i < table.num_items; ++i) {
    const cuda::WorkItem& item = table.items[i];
    const int32_t weight = weight_of(cuda::RowBlockTiles{
        table.tiles[int64_t{item.head} * shape.lengths.row_blocks() + item.row_block]});
    const auto key =
        std::pair(weight == 0 ? INT32_MAX : section(shape, item, section_kv_heads), -weight);
    CHECK(key >= previous, "item", i, "weight", weight, "after", -previous.second);
    previous = key;
  }
}

/// With joined row blocks: which ones are joined; counts lie between the true one (up to some
/// column tiles) and the sum of both apart; every item occurs once, longest first, joined ones
/// last.
void check_joined(const Shape& shape, const std::vector<HeadKeys>& keys,
                  const DeviceArray<HeadKeys>& heads, const std::vector<int32_t>& apart) {
  constexpr int32_t kSection = 2;
  const cuda::SectionLimits limits = sections_of(shape, kSection);
  const DeviceArray<std::byte> workspace(cuda::work_table_bytes(shape, limits));
  const cuda::WorkTable table =
      cuda::build_work_table(shape, heads.data(), cuda::Joining::kWhereShared, workspace.span(),
                             /*stream=*/nullptr, limits);
  const Lengths& lengths = shape.lengths;
  for (std::size_t h = 0; h < keys.size(); ++h) {
    for (int32_t r = 0; r < lengths.row_blocks(); ++r) {
      const std::size_t at =
          h * static_cast<std::size_t>(lengths.row_blocks()) + static_cast<std::size_t>(r);
      const cuda::RowBlockTiles tiles{table.tiles[at]};
      const bool after_pair = r % 2 != 0 && cuda::RowBlockTiles{table.tiles[at - 1]}.is_pair();
      CHECK(tiles.is_joined() == after_pair, "head", h, "row block", r);
      if (tiles.is_joined()) continue;
      if (!tiles.is_pair()) {
        CHECK(tiles.count() == apart[at], "head", h, "row block", r);
        continue;
      }
      const int32_t both = apart[at] + apart[at + 1];
      const Together together = tiles_together(keys[h], lengths, r);
      CHECK(r % 2 == 0 && tiles.count() >= together.tiles - together.more_columns &&
                tiles.count() <= both + 1,
            "head", h, "form", static_cast<int>(keys[h].form), "row block", r, "count",
            tiles.count(), "true", together.tiles, "apart", both);
      const bool estimated = keys[h].form != Form::kShape;
      CHECK(!estimated || 4 * tiles.count() <= cuda::kPairShareOf4 * both, "head", h);
    }
  }
  std::set<std::pair<int32_t, int32_t>> items;
  for (int64_t i = 0; i < table.num_items; ++i) {
    items.emplace(table.items[i].head, table.items[i].row_block);
  }
  check_longest_first(table, shape, kSection);
  CHECK(items.size() == apart.size(), items.size(), apart.size());
}

void check_table(const Shape& shape, const DeviceArray<HeadKeys>& heads,
                 const std::vector<int32_t>& expected_tiles, int32_t section_kv_heads,
                 const cuda::SectionLimits& limits) {
  const DeviceArray<std::byte> workspace(cuda::work_table_bytes(shape, limits));
  const cuda::WorkTable table =
      cuda::build_work_table(shape, heads.data(), cuda::Joining::kNone, workspace.span(),
                             /*stream=*/nullptr, limits);
  const auto num_items = static_cast<std::size_t>(table.num_items);
  CHECK(num_items == expected_tiles.size());
  if (num_items != expected_tiles.size() || num_items == 0) return;
  const bool same_tiles = std::equal(expected_tiles.begin(), expected_tiles.end(), table.tiles);
  CHECK(same_tiles, "seqlen_q", shape.lengths.seqlen_q, "seqlen_k", shape.lengths.seqlen_k);
  check_order(shape, {table.items, table.items + num_items}, expected_tiles, section_kv_heads);
}

/// Joining::kAll: row blocks 2 i and 2 i + 1 form one item, with at least as many tiles as either.
void check_all_joined(const Shape& shape, const DeviceArray<HeadKeys>& heads,
                      const std::vector<int32_t>& apart) {
  const DeviceArray<std::byte> workspace(cuda::work_table_bytes(shape));
  const cuda::WorkTable table = cuda::build_work_table(shape, heads.data(), cuda::Joining::kAll,
                                                       workspace.span(), /*stream=*/nullptr);
  const int32_t row_blocks = shape.lengths.row_blocks();
  for (int64_t i = 0; i < table.num_items; ++i) {
    const cuda::RowBlockTiles tiles{table.tiles[i]};
    const auto r = static_cast<int32_t>(i % row_blocks);
    CHECK(
        tiles.is_joined() == (r % 2 == 1) && tiles.is_pair() == (r % 2 == 0 && r + 1 < row_blocks),
        "row block", r, "of", row_blocks, "code", tiles.code);
    const auto at = static_cast<std::size_t>(i);
    CHECK(tiles.is_joined() || tiles.count() >= apart[at], "row block", r);
  }
  check_longest_first(table, shape, kOneSection);
}

void check_call(const Shape& shape, const RandomListSizes& sizes, bool spoilt, uint64_t seed) {
  const RandomHeads heads(shape, sizes, spoilt, seed);
  const DeviceArray<HeadKeys> prepared(static_cast<std::size_t>(shape.batch * shape.num_heads_q));
  cuda::prepare_head_keys(shape, heads.patterns, heads.index(), prepared.data(),
                          /*stream=*/nullptr);
  check_key_sets(shape, heads, prepared);
  const std::vector<int32_t> expected = iterated_tiles(heads.expected(), shape.lengths);
  check_totals(shape, heads, expected);
  check_table(shape, prepared, expected, kOneSection, {.bytes = INT64_MAX});
  for (const int32_t section : {1, 3}) {
    const int32_t at_most_256 = (shape.batch * shape.num_heads_kv + 255) / 256;
    check_table(shape, prepared, expected, std::max(section, at_most_256),
                sections_of(shape, section));
  }
  if (!spoilt) check_all_joined(shape, prepared, expected);
  if (!spoilt) check_joined(shape, heads.expected(), prepared, expected);
}

/// The bound that decides how many digits are sorted, where lists are densest.
void check_bound() {
  for (const Lengths lengths : {Lengths{1, 1}, Lengths{64, 64}, Lengths{100, 1000},
                                Lengths{1000, 1000}, Lengths{65, 6500}}) {
    std::vector<int32_t> columns(static_cast<std::size_t>(lengths.seqlen_k));
    std::iota(columns.begin(), columns.end(), 0);
    // Every other block of 64 distances: half the tiles of the columns, and half the keys.
    std::vector<Run> runs;
    for (int32_t lo = 1; lo < lengths.seqlen_k; lo += 65) runs.push_back({lo, lo + 64});
    const HeadKeys head{.form = Form::kRuns,
                        .runs = runs.data(),
                        .columns = columns.data(),
                        .num_runs = static_cast<int32_t>(runs.size()),
                        .num_columns = lengths.seqlen_k};
    for (int32_t r = 0; r < lengths.row_blocks(); ++r) {
      const int64_t tiles = count_key_tiles(head, lengths, r);
      CHECK(tiles <= max_row_block_tiles(lengths), "seqlen_k", lengths.seqlen_k, "tiles", tiles);
    }
  }
}

/// Only dense heads, so there are many items with few different counts: each block sorts several
/// tiles.
void check_many_items() {
  const Shape shape = make_shape(/*batch=*/2, /*num_heads_q=*/4096, /*num_heads_kv=*/1024,
                                 {.seqlen_q = 8320, .seqlen_k = 8320});
  const std::vector<HeadKeys> heads(static_cast<std::size_t>(shape.batch * shape.num_heads_q));
  const DeviceArray<HeadKeys> prepared(heads);
  const std::vector<int32_t> tiles = iterated_tiles(heads, shape.lengths);
  check_table(shape, prepared, tiles, kOneSection, {.bytes = INT64_MAX});
  // A KV head has 2.1 MB of keys and values and 260 row tiles. 2048 KV heads: at most 256 sections.
  check_table(shape, prepared, tiles, /*section_kv_heads=*/15, {});
  check_table(shape, prepared, tiles, /*section_kv_heads=*/10, {.bytes = 1, .min_row_tiles = 2600});
  check_table(shape, prepared, tiles, /*section_kv_heads=*/8, {.bytes = 1, .min_row_tiles = 0});
}

}  // namespace

int main() {
  check_bound();
  const Lengths kLengths[] = {{1, 1},      {1, 64},      {63, 65},    {64, 64},     {65, 129},
                              {100, 1000}, {1000, 1000}, {257, 5000}, {3000, 3000}, {200, 200}};
  uint64_t seed = 1;
  for (const Lengths& lengths : kLengths) {
    for (const bool spoilt : {false, true}) {
      const int32_t seqlen_k = lengths.seqlen_k;
      const RandomListSizes few{
          .columns = std::min(seqlen_k, 70), .runs = std::min(seqlen_k, 20), .blocks = 3};
      const RandomListSizes many{
          .columns = seqlen_k, .runs = seqlen_k, .blocks = lengths.key_blocks()};
      check_call(make_shape(/*batch=*/1, /*num_heads_q=*/10, /*num_heads_kv=*/5, lengths), few,
                 spoilt, ++seed);
      check_call(make_shape(/*batch=*/2, /*num_heads_q=*/6, /*num_heads_kv=*/1, lengths), many,
                 spoilt, ++seed);
    }
  }
  // No lists, no rows.
  check_call(make_shape(/*batch=*/1, /*num_heads_q=*/12, /*num_heads_kv=*/12,
                        {.seqlen_q = 100, .seqlen_k = 300}),
             {.columns = 0, .runs = 0, .blocks = 0}, /*spoilt=*/false, ++seed);
  check_call(make_shape(/*batch=*/1, /*num_heads_q=*/8, /*num_heads_kv=*/4,
                        {.seqlen_q = 0, .seqlen_k = 300}),
             {.columns = 9, .runs = 9, .blocks = 2}, /*spoilt=*/true, ++seed);
  // More heads than are processed at once.
  check_call(make_shape(/*batch=*/2, /*num_heads_q=*/200, /*num_heads_kv=*/200,
                        {.seqlen_q = 10, .seqlen_k = 80}),
             {.columns = 5, .runs = 3, .blocks = 2}, /*spoilt=*/true, ++seed);
  // Sort keys of two digits and of three; several blocks of items.
  check_call(make_shape(/*batch=*/1, /*num_heads_q=*/16, /*num_heads_kv=*/2,
                        {.seqlen_q = 20000, .seqlen_k = 20100}),
             {.columns = 300, .runs = 200, .blocks = 5}, /*spoilt=*/false, ++seed);
  check_call(make_shape(/*batch=*/1, /*num_heads_q=*/8, /*num_heads_kv=*/4,
                        {.seqlen_q = 700, .seqlen_k = 3000000}),
             {.columns = 200, .runs = 100, .blocks = 50}, /*spoilt=*/false, ++seed);
  check_many_items();

  simt::options().schedule = simt::Schedule::kRandom;
  check_call(make_shape(/*batch=*/2, /*num_heads_q=*/8, /*num_heads_kv=*/2,
                        {.seqlen_q = 2500, .seqlen_k = 2600}),
             {.columns = 900, .runs = 300, .blocks = 9}, /*spoilt=*/true, ++seed);
  return test::finish();
}
