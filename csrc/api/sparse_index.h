// From what a caller says each head attends to the HeadKeys that stage 3 walks.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "api/call.h"
#include "api/tensor.h"
#include "core/backend.h"
#include "minference/minference.h"

namespace minference::api {

/// A caller's index tensors, by name. Absent where no head needs them.
struct IndexTensors {
  explicit IndexTensors(const minf_sparse_index& index)
      : vertical_index{"vertical_index", &index.vertical_index},
        runs{"runs", &index.runs},
        run_count{"run_count", &index.run_count},
        block_index{"block_index", &index.block_index} {}

  std::array<TensorArg, 4> all() const { return {vertical_index, runs, run_count, block_index}; }

  TensorArg vertical_index;
  TensorArg runs;
  TensorArg run_count;
  TensorArg block_index;
};

/// Checks the struct and its patterns.
Patterns checked_patterns(const minf_sparse_index* index, int64_t num_heads_q);

/// Checks that the tensors the patterns need are there and that all fit; reads no entry. They must
/// be on the device of `reference`.
void check_index_tensors(const IndexTensors& tensors, const Patterns& patterns, const Shape& shape,
                         const TensorArg& reference);

/// Checks that (lo, hi) pairs lie one after the other.
void check_run_pairs(const TensorArg& runs);

/// Key sets of all (batch, query head). Tensors are untrusted: every entry in use is checked.
std::vector<HeadKeys> checked_head_keys(const IndexTensors& tensors, const Patterns& patterns,
                                        const Shape& shape);

/// Number of entries before the -1 that may fill the end of a checked or estimated list.
int32_t entries_before_fill(std::span<const int32_t> entries);

/// Checks one head's list of columns or distances: ascending in [0, limit), then -1 only.
void check_head_list(const TensorArg& arg, int64_t batch, int64_t head, int64_t limit);

/// Checks a tensor of tile counts [batch, num_heads_q], int64, in host memory.
void check_tiles(const TensorArg& tiles, const Shape& shape);

/// Writes the number of 64-row x 64-key tiles of each head, unless `tiles` is absent.
void write_tiles(std::span<const HeadKeys> heads, const Shape& shape, const TensorArg& tiles,
                 const Executor& executor);

}  // namespace minference::api
