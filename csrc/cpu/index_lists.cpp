// Checks of index lists, entry by entry, and the key sets they describe.
// SPDX-License-Identifier: Apache-2.0
#include "cpu/index_lists.h"

#include <algorithm>
#include <cstddef>

#include "core/check.h"
#include "core/key_tiles.h"

namespace minference::cpu {
namespace {

[[noreturn]] void refuse_entry(const ListName& name, std::span<const int32_t> entries,
                               std::size_t idx, int64_t limit) {
  detail::throw_error(
      MINF_ERROR_INVALID_ARGUMENT,
      detail::concat(name.text(), ": expected ascending entries in [0, ", limit,
                     ") without duplicates, -1 only after them; got ", entries[idx], " at ", idx,
                     idx == 0 ? "" : detail::concat(" after ", entries[idx - 1])));
}

/// One head of an IndexLists.
struct HeadIndex {
  const IndexLists& lists;
  const Lengths& lengths;
  int32_t batch;
  int32_t head;

  void set_columns(HeadKeys& keys) const {
    const HeadLists<const int32_t>& columns = lists.columns;
    keys.columns = columns.at(batch, head);
    keys.num_columns =
        checked_count({"vertical_index", batch, head},
                      {keys.columns, static_cast<std::size_t>(columns.size)}, lengths.seqlen_k);
  }

  void set_runs(HeadKeys& keys) const {
    const int32_t num_runs = *lists.run_count.at(batch, head);
    MINF_CHECK_ARG(num_runs >= 0 && num_runs <= lists.runs.size, "run_count[", batch, ", ", head,
                   "]: expected a count in [0, max_runs = ", lists.runs.size, "], got ", num_runs);
    if (num_runs == 0) return;
    keys.runs = lists.runs.at(batch, head);
    keys.num_runs = num_runs;
    int32_t previous_hi = 0;
    for (int32_t idx = 0; idx < num_runs; ++idx) {
      const Run run = keys.runs[idx];
      MINF_CHECK_ARG(run.lo >= previous_hi && run.lo < lengths.seqlen_k && run.hi > run.lo &&
                         (run.hi - run.lo) % kBlock == 0,
                     "runs[", batch, ", ", head, ", ", idx, "]: expected lo in [", previous_hi,
                     ", seqlen_k = ", lengths.seqlen_k, ") and hi - lo a positive multiple of ",
                     kBlock, ", got (", run.lo, ", ", run.hi, ")");
      previous_hi = run.hi;
    }
  }

  void set_blocks(HeadKeys& keys) const {
    if (lists.blocks.data == nullptr) return;
    keys.blocks = lists.blocks.at(batch, head);
    keys.block_stride = lists.block_row_stride;
    keys.max_blocks = lists.blocks.size;
    for (int64_t row_block = 0; row_block < lengths.row_blocks(); ++row_block) {
      checked_count(
          {"block_index", batch, head, row_block},
          {keys.blocks + row_block * keys.block_stride, static_cast<std::size_t>(keys.max_blocks)},
          lengths.key_blocks());
    }
  }
};

}  // namespace

std::string ListName::text() const {
  const std::string rest = row_block < 0 ? "]" : detail::concat(", ", row_block, "]");
  return detail::concat(tensor, "[", batch, ", ", head, rest);
}

int32_t checked_count(const ListName& name, std::span<const int32_t> entries, int64_t limit) {
  std::size_t count = 0;
  int32_t previous = -1;
  for (; count < entries.size() && entries[count] > previous; ++count) previous = entries[count];
  if (count > 0 && previous >= limit) {
    const auto first_beyond =
        std::ranges::lower_bound(entries.first(count), limit) - entries.begin();
    refuse_entry(name, entries, static_cast<std::size_t>(first_beyond), limit);
  }
  for (std::size_t idx = count; idx < entries.size(); ++idx) {
    if (entries[idx] != -1) refuse_entry(name, entries, idx, limit);
  }
  return static_cast<int32_t>(count);
}

std::vector<HeadKeys> checked_head_keys(const IndexLists& index, std::span<const HeadKeys> patterns,
                                        const Shape& shape) {
  std::vector<HeadKeys> keys;
  keys.reserve(static_cast<std::size_t>(shape.batch) * static_cast<std::size_t>(shape.num_heads_q));
  for (int32_t batch = 0; batch < shape.batch; ++batch) {
    for (int32_t head = 0; head < shape.num_heads_q; ++head) {
      HeadKeys& head_keys = keys.emplace_back(pattern_of_head(patterns, head));
      const HeadIndex lists{index, shape.lengths, batch, head_keys.list_head};
      if (head_keys.form == Form::kRuns) {
        lists.set_columns(head_keys);
        lists.set_runs(head_keys);
      } else if (head_keys.form == Form::kBlocks) {
        lists.set_blocks(head_keys);
      }
    }
  }
  return keys;
}

void write_tiles(std::span<const HeadKeys> heads, const Shape& shape,
                 const HeadLists<int64_t>& tiles, const Executor& executor) {
  parallel_interleaved(executor, static_cast<int64_t>(heads.size()), [&](int64_t i) {
    const HeadKeys& head = heads[static_cast<std::size_t>(i)];
    int64_t count = 0;
    for (int32_t row_block = 0; row_block < shape.lengths.row_blocks(); ++row_block) {
      count += count_key_tiles(head, shape.lengths, row_block);
    }
    *tiles.at(i / shape.num_heads_q, i % shape.num_heads_q) = count;
  });
}

}  // namespace minference::cpu
