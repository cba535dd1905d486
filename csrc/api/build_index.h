// Stages 1 and 2 behind their checks, for heads that each have their own pattern: what
// build_index.cpp and prefill.cpp share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "api/call.h"
#include "api/tensor.h"
#include "core/backend.h"
#include "core/estimator.h"
#include "core/workspace.h"
#include "minference/minference.h"

namespace minference::api {

/// A checked call.
struct IndexCall {
  const Backend& backend;
  Executor executor;
  Patterns patterns;
  Shape shape;
  ConstTokens q;
  KvRows k;
  double softmax_scale = 1;
};

/// Checks everything but memory. `softmax_scale`: already checked.
IndexCall checked_index_call(const TensorArg& q, const TensorArg& k, const Shape& shape,
                             const minf_pattern* patterns, int64_t num_patterns,
                             double softmax_scale, const minf_exec* exec);

/// Heads whose estimator and options are the same: they are estimated together.
struct EstimateGroup {
  const Estimator* estimator = nullptr;
  minf_pattern pattern{};
  std::vector<EstimateTarget> targets;
};

/// The lists of a call's heads: where they lie, and what fills them. Lists of all heads of a form
/// lie in one tensor, in which a head without lists takes no space. Null while memory is counted.
struct IndexLayout {
  std::vector<HeadKeys> patterns;  // One per query head, or one for all; without lists.
  int32_t run_heads = 0;           // Heads with columns and runs.
  int32_t block_heads = 0;         // Heads with block lists.
  ListSizes sizes;                 // Of the longest lists.
  HeadLists<int32_t> columns, distances, run_count, blocks;
  HeadLists<Run> runs;
  std::vector<EstimateGroup> groups;
  std::vector<std::span<int32_t>> uneven;  // Lists that are not filled to their end.

  /// The lists, as stage 3 reads them.
  IndexLists index() const;
};

/// Takes memory for the lists of every head: once counting, once for the call.
IndexLayout lay_out_index(const IndexCall& call, WorkspaceAllocator& memory);

/// Work memory of stages 1 and 2.
std::size_t index_work_bytes(const IndexCall& call, const IndexLayout& layout);

/// Fills the lists.
void build_index(const IndexCall& call, const IndexLayout& layout, Workspace work);

}  // namespace minference::api
