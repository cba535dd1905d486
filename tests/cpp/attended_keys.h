// Whether a query row attends a key, by the set definition of every pattern, independent of the
// iterator.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/pattern.h"

namespace minference::test {

inline bool in_window_pattern(const HeadKeys& head, int32_t position, int32_t key) {
  return key < head.sink || int64_t{position} - key < head.window;
}

inline bool in_runs_or_columns(const HeadKeys& head, int32_t end, int32_t key) {
  const auto touches = [&](const Run& run) { return key >= end - run.hi && key < end - run.lo; };
  return std::any_of(head.runs, head.runs + head.num_runs, touches) ||
         std::find(head.columns, head.columns + head.num_columns, key) !=
             head.columns + head.num_columns;
}

inline bool in_block_list(const HeadKeys& head, int32_t row_block, int32_t key) {
  const int32_t* list = head.blocks + row_block * head.block_stride;
  return std::find(list, list + head.max_blocks, key / kBlock) != list + head.max_blocks;
}

/// Whether query row `row` attends `key`.
inline bool attends(const HeadKeys& head, const Lengths& lengths, int32_t row, int32_t key) {
  const int32_t position = row + lengths.seqlen_k - lengths.seqlen_q;
  if (key > position) return false;
  const int32_t row_block = row / 64;
  const int32_t end = 64 * row_block + 64 + lengths.seqlen_k - lengths.seqlen_q;
  switch (head.form) {
    case Form::kShape:
      return in_window_pattern(head, position, key) ||
             row >= int64_t{lengths.seqlen_q} - head.dense_rows;
    case Form::kRuns:
      return in_runs_or_columns(head, end, key);
    case Form::kBlocks:
      return in_block_list(head, row_block, key);
  }
  return false;
}

}  // namespace minference::test
