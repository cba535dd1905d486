// Checks of index tensors, and their form inside the library.
// SPDX-License-Identifier: Apache-2.0
#include "api/sparse_index.h"

#include <cstddef>

#include "core/check.h"

namespace minference::api {
namespace {

void check_present(const TensorArg& arg, const char* pattern) {
  MINF_CHECK_ARG(!is_absent(arg.tensor), arg.name, ": expected a tensor because some head is ",
                 pattern, ", got none");
}

void check_if_present(const TensorArg& arg, const TensorArg& reference,
                      std::initializer_list<int64_t> expected, const char* meaning) {
  if (is_absent(arg.tensor)) return;
  check_tensor(arg, static_cast<int>(expected.size()), {MINF_INT32});
  check_same_device(arg, reference);
  check_shape(arg, expected, meaning);
  check_data(arg);
}

/// Whether a tensor, which may be absent or of any shape, has lists of this many heads.
bool has_lists_of(const TensorArg& lists, int64_t heads) {
  return !is_absent(lists.tensor) && lists.tensor->ndim > 1 && lists.size(1) == heads;
}

}  // namespace

minf_sparse_index read_index(const minf_sparse_index* index) {
  MINF_CHECK_ARG(index != nullptr, "index: expected a struct, got null");
  return read_struct(*index, "index");
}

Patterns checked_patterns(const minf_sparse_index& index, int64_t num_heads_q) {
  return Patterns(index.patterns, index.num_patterns, num_heads_q, PatternSizes::kIgnoredWithIndex);
}

void check_index_tensors(const IndexTensors& tensors, const Patterns& patterns, const Shape& shape,
                         const TensorArg& reference) {
  const int64_t run_heads = patterns.count(Form::kRuns, shape.num_heads_q);
  const int64_t block_heads = patterns.count(Form::kBlocks, shape.num_heads_q);
  if (run_heads > 0) {
    check_present(tensors.vertical_index, "vertical_slash");
    check_present(tensors.runs, "vertical_slash");
    check_present(tensors.run_count, "vertical_slash");
  }
  if (block_heads > 0) check_present(tensors.block_index, "block_sparse");

  const int64_t batch = shape.batch;
  // A tensor has lists of the heads that read it, or else of all heads.
  const auto heads_in = [&](const TensorArg& lists, int64_t readers) {
    return has_lists_of(lists, readers) ? readers : shape.num_heads_q;
  };
  const int64_t in_runs = heads_in(tensors.vertical_index, run_heads);
  check_if_present(tensors.vertical_index, reference, {batch, in_runs, -1},
                   "[batch, num_heads_q, size]");
  check_if_present(tensors.runs, reference, {batch, in_runs, -1, 2},
                   "[batch, num_heads_q, max_runs, 2]");
  check_if_present(tensors.run_count, reference, {batch, in_runs}, "[batch, num_heads_q]");
  check_if_present(
      tensors.block_index, reference,
      {batch, heads_in(tensors.block_index, block_heads), shape.lengths.row_blocks(), -1},
      "[batch, num_heads_q, ceil(seqlen_q / 64), top_k]");
  if (!is_absent(tensors.runs.tensor)) check_run_pairs(tensors.runs);
}

void check_run_pairs(const TensorArg& runs) {
  MINF_CHECK_ARG(
      runs.size(2) <= 1 || runs.stride(2) == 2, runs.name,
      ": expected (lo, hi) pairs one after the other, stride 2 between them, got stride ",
      runs.stride(2));
}

std::vector<HeadKeys> pattern_keys(const Patterns& patterns, const IndexTensors& index) {
  std::vector<HeadKeys> keys;
  keys.reserve(static_cast<std::size_t>(patterns.size()));
  const int64_t num_patterns = patterns.size();
  const bool own_runs =
      has_lists_of(index.vertical_index, patterns.count(Form::kRuns, num_patterns));
  const bool own_blocks =
      has_lists_of(index.block_index, patterns.count(Form::kBlocks, num_patterns));
  int32_t num_runs_heads = 0, num_blocks_heads = 0;
  for (int32_t head = 0; head < num_patterns; ++head) {
    HeadKeys& head_keys =
        keys.emplace_back(pattern_info(patterns[head].kind).head_keys(patterns[head]));
    head_keys.list_head = head;
    if (head_keys.form == Form::kRuns && own_runs) head_keys.list_head = num_runs_heads++;
    if (head_keys.form == Form::kBlocks && own_blocks) head_keys.list_head = num_blocks_heads++;
  }
  return keys;
}

IndexLists index_lists(const IndexTensors& tensors) {
  const bool has_blocks = !is_absent(tensors.block_index.tensor);
  return {.columns = head_lists<const int32_t>(tensors.vertical_index),
          .runs = head_lists<const Run>(tensors.runs),
          .run_count = head_lists<const int32_t>(tensors.run_count),
          .blocks = head_lists<const int32_t>(tensors.block_index),
          .block_row_stride = has_blocks ? tensors.block_index.stride(2) : 0};
}

void check_tiles(const TensorArg& tiles, const Shape& shape) {
  check_tensor(tiles, 2, {MINF_INT64});
  check_shape(tiles, {shape.batch, shape.num_heads_q}, "[batch, num_heads_q]");
  check_distinct_elements(tiles);
  check_data(tiles);
}

}  // namespace minference::api
