// Checks of index tensors, entry by entry, and the key sets they describe.
// SPDX-License-Identifier: Apache-2.0
#include "api/sparse_index.h"

#include <algorithm>
#include <cstddef>
#include <string>

#include "core/check.h"
#include "core/key_tiles.h"

namespace minference::api {
namespace {

/// Which list of an index tensor, for messages.
struct ListName {
  const char* tensor;
  int64_t batch;
  int64_t head;
  int64_t row_block = -1;  // Of block_index only.

  std::string text() const {
    const std::string rest = row_block < 0 ? "]" : detail::concat(", ", row_block, "]");
    return detail::concat(tensor, "[", batch, ", ", head, rest);
  }
};

[[noreturn]] void refuse_entry(const ListName& name, std::span<const int32_t> entries,
                               std::size_t idx, int64_t limit) {
  detail::throw_error(
      MINF_ERROR_INVALID_ARGUMENT,
      detail::concat(name.text(), ": expected ascending entries in [0, ", limit,
                     ") without duplicates, -1 only after them; got ", entries[idx], " at ", idx,
                     idx == 0 ? "" : detail::concat(" after ", entries[idx - 1])));
}

/// Checks that entries ascend strictly within [0, limit) and only -1 follows; returns their number.
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

std::span<const int32_t> head_list(const TensorArg& arg, int64_t batch, int64_t head) {
  return {head_entries<int32_t>(arg, batch, head), static_cast<std::size_t>(arg.size(2))};
}

void set_columns(HeadKeys& keys, const IndexTensors& tensors, int64_t batch, int64_t head,
                 const Lengths& lengths) {
  const auto columns = head_list(tensors.vertical_index, batch, head);
  keys.columns = columns.data();
  keys.num_columns =
      checked_count({tensors.vertical_index.name, batch, head}, columns, lengths.seqlen_k);
}

void set_runs(HeadKeys& keys, const IndexTensors& tensors, int64_t batch, int64_t head,
              const Lengths& lengths) {
  const int64_t max_runs = tensors.runs.size(2);
  const int32_t num_runs = *head_entries<int32_t>(tensors.run_count, batch, head);
  MINF_CHECK_ARG(num_runs >= 0 && num_runs <= max_runs, "run_count[", batch, ", ", head,
                 "]: expected a count in [0, max_runs = ", max_runs, "], got ", num_runs);
  if (num_runs == 0) return;
  keys.runs = head_entries<Run>(tensors.runs, batch, head);
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

void set_blocks(HeadKeys& keys, const TensorArg& block_index, int64_t batch, int64_t head,
                const Lengths& lengths) {
  if (block_index.empty()) return;
  keys.blocks = head_entries<int32_t>(block_index, batch, head);
  keys.block_stride = block_index.stride(2);
  keys.max_blocks = static_cast<int32_t>(block_index.size(3));
  for (int64_t row_block = 0; row_block < lengths.row_blocks(); ++row_block) {
    checked_count(
        {block_index.name, batch, head, row_block},
        {keys.blocks + row_block * keys.block_stride, static_cast<std::size_t>(keys.max_blocks)},
        lengths.key_blocks());
  }
}

void check_present(const TensorArg& arg, const char* pattern) {
  MINF_CHECK_ARG(!is_absent(arg.tensor), arg.name, ": expected a tensor, for some head is ",
                 pattern, "; got none");
}

void check_if_present(const TensorArg& arg, const TensorArg& reference,
                      std::initializer_list<int64_t> expected, const char* meaning) {
  if (is_absent(arg.tensor)) return;
  check_tensor(arg, static_cast<int>(expected.size()), {MINF_INT32});
  check_same_device(arg, reference);
  check_shape(arg, expected, meaning);
  check_data(arg);
}

}  // namespace

Patterns checked_patterns(const minf_sparse_index* index, int64_t num_heads_q) {
  MINF_CHECK_ARG(index != nullptr, "index: expected a struct, got null");
  check_struct_size(*index, "index");
  return Patterns(index->patterns, index->num_patterns, num_heads_q,
                  PatternSizes::kIgnoredWithIndex);
}

void check_index_tensors(const IndexTensors& tensors, const Patterns& patterns, const Shape& shape,
                         const TensorArg& reference) {
  if (patterns.has(PatternKind::kVerticalSlash)) {
    check_present(tensors.vertical_index, "vertical_slash");
    check_present(tensors.runs, "vertical_slash");
    check_present(tensors.run_count, "vertical_slash");
  }
  if (patterns.has(PatternKind::kBlockSparse)) check_present(tensors.block_index, "block_sparse");

  const int64_t batch = shape.batch;
  const int64_t heads = shape.num_heads_q;
  check_if_present(tensors.vertical_index, reference, {batch, heads, -1},
                   "[batch, num_heads_q, size]");
  check_if_present(tensors.runs, reference, {batch, heads, -1, 2},
                   "[batch, num_heads_q, max_runs, 2]");
  check_if_present(tensors.run_count, reference, {batch, heads}, "[batch, num_heads_q]");
  check_if_present(tensors.block_index, reference, {batch, heads, shape.lengths.row_blocks(), -1},
                   "[batch, num_heads_q, ceil(seqlen_q / 64), top_k]");
  if (!is_absent(tensors.runs.tensor)) check_run_pairs(tensors.runs);
}

void check_run_pairs(const TensorArg& runs) {
  MINF_CHECK_ARG(
      runs.size(2) <= 1 || runs.stride(2) == 2, runs.name,
      ": expected (lo, hi) pairs one after the other, stride 2 between them, got stride ",
      runs.stride(2));
}

std::vector<HeadKeys> checked_head_keys(const IndexTensors& tensors, const Patterns& patterns,
                                        const Shape& shape) {
  std::vector<HeadKeys> keys;
  keys.reserve(num_heads_of(shape));
  for (int32_t batch = 0; batch < shape.batch; ++batch) {
    for (int32_t head = 0; head < shape.num_heads_q; ++head) {
      HeadKeys& head_keys = keys.emplace_back(head_keys_of(patterns[head]));
      if (head_keys.kind == PatternKind::kVerticalSlash) {
        set_columns(head_keys, tensors, batch, head, shape.lengths);
        set_runs(head_keys, tensors, batch, head, shape.lengths);
      } else if (head_keys.kind == PatternKind::kBlockSparse) {
        set_blocks(head_keys, tensors.block_index, batch, head, shape.lengths);
      }
    }
  }
  return keys;
}

int32_t entries_before_fill(std::span<const int32_t> entries) {
  return static_cast<int32_t>(std::ranges::find(entries, -1) - entries.begin());
}

void check_head_list(const TensorArg& arg, int64_t batch, int64_t head, int64_t limit) {
  checked_count({arg.name, batch, head}, head_list(arg, batch, head), limit);
}

void check_tiles(const TensorArg& tiles, const Shape& shape) {
  check_tensor(tiles, 2, {MINF_INT64});
  MINF_CHECK_ARG(tiles.tensor->device_type == MINF_DEVICE_CPU,
                 "tiles: expected a tensor in host memory, got one on a CUDA device");
  check_shape(tiles, {shape.batch, shape.num_heads_q}, "[batch, num_heads_q]");
  check_distinct_elements(tiles);
  check_data(tiles);
}

void write_tiles(std::span<const HeadKeys> heads, const Shape& shape, const TensorArg& tiles,
                 const Executor& executor) {
  if (is_absent(tiles.tensor)) return;
  parallel_interleaved(executor, static_cast<int64_t>(heads.size()), [&](int64_t i) {
    const HeadKeys& head = heads[static_cast<std::size_t>(i)];
    int64_t count = 0;
    for (int32_t row_block = 0; row_block < shape.lengths.row_blocks(); ++row_block) {
      count += count_key_tiles(head, shape.lengths, row_block);
    }
    *head_entries<int64_t>(tiles, i / shape.num_heads_q, i % shape.num_heads_q) = count;
  });
}

}  // namespace minference::api
