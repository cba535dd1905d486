// A caller's index: its checks, and its form as the lists and key sets that backends take.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
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

/// The caller's struct, after checking that there is one.
minf_sparse_index read_index(const minf_sparse_index* index);

/// Checks its patterns.
Patterns checked_patterns(const minf_sparse_index& index, int64_t num_heads_q);

/// Checks that the tensors the patterns need exist and that all have fitting shapes; reads no
/// entry. They must be on the device of `reference`.
void check_index_tensors(const IndexTensors& tensors, const Patterns& patterns, const Shape& shape,
                         const TensorArg& reference);

/// Checks that (lo, hi) pairs lie one after the other.
void check_run_pairs(const TensorArg& runs);

/// The key sets of the patterns, without lists: one per query head, or one for all. A tensor of
/// `index` may have lists of all heads, or only of the heads that read it.
std::vector<HeadKeys> pattern_keys(const Patterns& patterns, const IndexTensors& index);

/// The lists of checked tensors; null where a tensor is absent or empty.
IndexLists index_lists(const IndexTensors& tensors);

/// Checks a tensor of tile counts [batch, num_heads_q], int64.
void check_tiles(const TensorArg& tiles, const Shape& shape);

}  // namespace minference::api
