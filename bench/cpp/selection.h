// Which keys the heads attend, as index tensors on a device: estimated, or given with a density.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "inputs.h"
#include "minference/minference.hpp"
#include "options.h"
#include "tensor.h"

namespace bench {

/// What a call runs with: all that is timed here is enqueued on gpu::stream().
minference::Exec exec_of(minference::DeviceType device, int32_t num_threads);

enum class ListKind { kRuns, kColumns, kBlocks };

const char* name_of(ListKind kind);

struct Selection {
  minference::SparseIndex index;  // Into `tensors`.
  std::vector<Tensor> tensors;
  /// Fill `index` (stages 1 and 2); nothing where the patterns alone say what is attended.
  std::vector<std::function<void(const minference::Exec&)>> estimates;
  std::size_t workspace_bytes = 0;  // Of `estimates`, with the threads of `exec`.
  std::size_t estimate_bytes = 0;   // Of q and k that they read.

  void estimate(const minference::Exec& exec) const {
    for (const auto& estimate : estimates) estimate(exec);
  }
};

/// Whether a pattern is estimated at all.
bool is_estimated(const PatternOption& pattern);

/// The index of `pattern` over q and k, as minf_prefill_attention() would make it. Not yet filled.
Selection pattern_selection(const Qkv& qkv, const PatternOption& pattern,
                            const minference::Exec& exec);

/// Lists of about `density`. Runs are planned by `estimates`.
Selection list_selection(const Shape& shape, ListKind kind, double density,
                         minference::DeviceType device);

/// Tiles of 64 rows and 64 keys that minf_sparse_attention() computes, of all heads.
int64_t count_tiles(const Shape& shape, const minference::SparseIndex& index,
                    minference::DeviceType device, const minference::Exec& exec);

}  // namespace bench
