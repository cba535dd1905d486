// Stage 1: an estimator turns q and k into the lists of some heads. A backend has a list of them,
// one for each kind of pattern that is estimated; nothing else in the library tells estimators
// apart.
//
// A new estimator is a struct in minf_pattern, a row in core/pattern_info.cpp, its typed arguments
// here, and an entry in the list of each backend that has it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/arguments.h"
#include "core/kv_rows.h"
#include "core/pattern_info.h"

namespace minference {

/// One (batch, query head) to estimate, and where its lists go. Pointers are null while work memory
/// is counted, and where the pattern has no such list.
struct EstimateTarget {
  int32_t batch = 0;
  int32_t head = 0;
  ListSizes sizes;
  int32_t* columns = nullptr;
  int32_t* distances = nullptr;
  int32_t* blocks = nullptr;
  int64_t block_row_stride = 0;  // Elements between the block lists of neighbouring row blocks.
};

struct EstimateArgs {
  Shape shape;
  ConstTokens q;
  KvRows k;
  double softmax_scale = 0;
  minf_pattern pattern{};  // The options of all targets; their sizes are in the targets.
  std::span<const EstimateTarget> targets;  // Ordered by (batch, head).
};

struct Estimator {
  minf_pattern_kind kind;
  /// The targets' pointers may be null. Must not shrink when a target's sizes grow: if api/ does
  /// not know the sizes yet, it asks with the largest.
  std::size_t (*workspace_bytes)(const EstimateArgs&, const Executor&);
  /// Fills the lists. -1 fills the end of a list with fewer entries than its size.
  void (*estimate)(const EstimateArgs&, Workspace, const Executor&);
};

/// Stage 1, vertical-slash: one (batch, query head) to estimate, and where its indices go. -1 fills
/// the end of a list with fewer entries than `vertical_size` or `slash_size`.
struct VerticalSlashTarget {
  int32_t batch = 0;
  int32_t head = 0;
  int32_t vertical_size = 0;  // Already clamped: sink <= vertical_size <= seqlen_k.
  int32_t slash_size = 0;     // Already clamped: local <= slash_size <= seqlen_k.
  int32_t* vertical_index = nullptr;
  int32_t* slash_index = nullptr;
};

struct EstimateVerticalSlashArgs {
  Shape shape;
  ConstTokens q;
  KvRows k;
  double softmax_scale = 0;
  int32_t last_q = 0;  // Already clamped: <= min(64, seqlen_q). 0 without rows, when every score is
                       // 0; there is no workspace then.
  int32_t sink = 0;    // Already clamped to seqlen_k.
  int32_t local = 0;   // Already clamped to seqlen_k.
  double vertical_p = 1;
  double slash_p = 1;
  std::span<const VerticalSlashTarget> targets;  // Ordered by (batch, head).
};

/// Stage 1, block-sparse: one (batch, query head), and where its block lists go.
struct BlockSparseTarget {
  int32_t batch = 0;
  int32_t head = 0;
  int32_t top_k = 0;               // May exceed the key blocks, at no cost in work memory.
  int64_t row_stride = 0;          // Elements between the lists of neighbouring row blocks.
  int32_t* block_index = nullptr;  // [row_blocks, top_k]
};

struct EstimateBlockSparseArgs {
  Shape shape;
  ConstTokens q;
  KvRows k;
  double softmax_scale = 0;  // Only top_p < 1 reads it.
  double top_p = 1;
  std::span<const BlockSparseTarget> targets;  // Ordered by (batch, head).
};

/// Whether two targets of stage 1 read the same keys.
template <typename Target>
bool share_keys(const Shape& shape, const Target& a, const Target& b) {
  return a.batch == b.batch && shape.kv_head(a.head) == shape.kv_head(b.head);
}

// ---- From the arguments of any estimator to those of one ------------------------------------

/// The result points into `targets`, which receives the typed targets.
EstimateVerticalSlashArgs vertical_slash_args(const EstimateArgs& args,
                                              std::vector<VerticalSlashTarget>& targets);
EstimateBlockSparseArgs block_sparse_args(const EstimateArgs& args,
                                          std::vector<BlockSparseTarget>& targets);

/// An entry for a backend's list, made of the backend's two functions on typed arguments.
template <auto kWorkspaceBytes, auto kEstimate>
inline constexpr Estimator kVerticalSlashEstimator = {
    .kind = MINF_VERTICAL_SLASH,
    .workspace_bytes =
        [](const EstimateArgs& args, const Executor& executor) {
          std::vector<VerticalSlashTarget> targets;
          return kWorkspaceBytes(vertical_slash_args(args, targets), executor);
        },
    .estimate =
        [](const EstimateArgs& args, Workspace workspace, const Executor& executor) {
          std::vector<VerticalSlashTarget> targets;
          kEstimate(vertical_slash_args(args, targets), workspace, executor);
        },
};

template <auto kWorkspaceBytes, auto kEstimate>
inline constexpr Estimator kBlockSparseEstimator = {
    .kind = MINF_BLOCK_SPARSE,
    .workspace_bytes =
        [](const EstimateArgs& args, const Executor& executor) {
          std::vector<BlockSparseTarget> targets;
          return kWorkspaceBytes(block_sparse_args(args, targets), executor);
        },
    .estimate =
        [](const EstimateArgs& args, Workspace workspace, const Executor& executor) {
          if (args.shape.lengths.seqlen_q == 0) return;  // No row block has a list.
          std::vector<BlockSparseTarget> targets;
          kEstimate(block_sparse_args(args, targets), workspace, executor);
        },
};

}  // namespace minference
