// All stages in one call, each head with its own pattern. Index memory between the stages and the
// stages' own work memory come from the caller's workspace; the stages run one after another and
// share theirs.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "api/attention.h"
#include "api/call.h"
#include "api/device.h"
#include "api/estimate.h"
#include "api/sparse_index.h"
#include "api/status.h"
#include "api/tensor.h"
#include "core/backend.h"
#include "core/index_lists.h"
#include "core/runs.h"
#include "core/workspace.h"

namespace minference::api {
namespace {

/// A prefill call, checked but for its workspace.
struct PrefillCall {
  const Backend& backend;
  Executor executor;
  Patterns patterns;
  EstimateVerticalSlashArgs vertical_slash{};  // Without targets.
  EstimateBlockSparseArgs block_sparse{};      // Without targets.
  AttentionArgs attention{};                   // Without heads.

  const Shape& shape() const { return attention.shape; }
};

/// One vertical-slash head in planning: whose keys are set, and room for its runs.
struct PlannedHead {
  std::size_t head_idx;  // In PrefillLists::heads.
  std::span<Run> runs;
};

/// Key sets of all heads, and what fills them. Lists are in the workspace; null while it is
/// counted.
struct PrefillLists {
  std::vector<HeadKeys> heads;  // [batch * num_heads_q]
  std::vector<VerticalSlashTarget> vertical_slash;
  std::vector<PlannedHead> planned;  // Of each vertical_slash target.
  std::vector<BlockSparseTarget> block_sparse;
};

void add_vertical_slash(PrefillLists& lists, const PrefillCall& call, const minf_pattern& pattern,
                        VerticalSlashTarget target, WorkspaceAllocator& memory) {
  const Lengths& lengths = call.shape().lengths;
  target.vertical_size = clamped_size(pattern.a, call.vertical_slash.sink, lengths);
  target.slash_size = clamped_size(pattern.b, call.vertical_slash.local, lengths);
  const auto take_entries = [&](int64_t count) {
    return memory.take<int32_t>(static_cast<std::size_t>(count)).data();
  };
  target.vertical_index = take_entries(target.vertical_size);
  target.slash_index = take_entries(target.slash_size);
  const int64_t num_runs = max_runs(target.slash_size, lengths.seqlen_k);
  lists.vertical_slash.push_back(target);
  lists.planned.push_back(
      {lists.heads.size() - 1, memory.take<Run>(static_cast<std::size_t>(num_runs))});
}

void add_block_sparse(PrefillLists& lists, const PrefillCall& call, const minf_pattern& pattern,
                      BlockSparseTarget target, WorkspaceAllocator& memory) {
  const Lengths& lengths = call.shape().lengths;
  target.top_k = std::min(pattern.a, lengths.key_blocks());
  target.row_stride = target.top_k;
  target.block_index = memory
                           .take<int32_t>(static_cast<std::size_t>(lengths.row_blocks()) *
                                          static_cast<std::size_t>(target.top_k))
                           .data();
  lists.block_sparse.push_back(target);
  HeadKeys& head = lists.heads.back();
  head.blocks = target.block_index;
  head.block_stride = target.row_stride;
  head.max_blocks = target.top_k;
}

/// Takes index memory for every head: once counting, once for the call.
PrefillLists lay_out_lists(const PrefillCall& call, WorkspaceAllocator& memory) {
  const Shape& shape = call.shape();
  PrefillLists lists;
  lists.heads.reserve(num_heads_of(shape));
  for (int32_t batch = 0; batch < shape.batch; ++batch) {
    for (int32_t head = 0; head < shape.num_heads_q; ++head) {
      const minf_pattern& pattern = call.patterns[head];
      lists.heads.push_back(head_keys_of(pattern));
      if (pattern.kind == MINF_VERTICAL_SLASH) {
        add_vertical_slash(lists, call, pattern, {.batch = batch, .head = head}, memory);
      } else if (pattern.kind == MINF_BLOCK_SPARSE) {
        add_block_sparse(lists, call, pattern, {.batch = batch, .head = head}, memory);
      }
    }
  }
  return lists;
}

/// The same call with its lists: the arguments of each stage.
struct PrefillStages {
  PrefillStages(const PrefillCall& call, const PrefillLists& lists)
      : vertical_slash(call.vertical_slash),
        block_sparse(call.block_sparse),
        attention(call.attention) {
    vertical_slash.targets = lists.vertical_slash;
    block_sparse.targets = lists.block_sparse;
    attention.heads = lists.heads;
  }

  EstimateVerticalSlashArgs vertical_slash;
  EstimateBlockSparseArgs block_sparse;
  AttentionArgs attention;
};

/// Work memory of the most demanding stage.
std::size_t stage_bytes(const PrefillCall& call, const PrefillStages& stages) {
  const Backend& backend = call.backend;
  std::size_t bytes = backend.attention_bytes(stages.attention, call.executor);
  if (!stages.vertical_slash.targets.empty()) {
    bytes = std::max(bytes,
                     backend.estimate_vertical_slash_bytes(stages.vertical_slash, call.executor));
  }
  if (!stages.block_sparse.targets.empty()) {
    bytes =
        std::max(bytes, backend.estimate_block_sparse_bytes(stages.block_sparse, call.executor));
  }
  return bytes;
}

std::size_t counted_bytes(const PrefillCall& call) {
  if (has_no_rows(call.shape())) return 0;
  WorkspaceAllocator memory;
  const PrefillLists lists = lay_out_lists(call, memory);
  memory.take<std::byte>(stage_bytes(call, PrefillStages(call, lists)));
  return memory.bytes();
}

/// Number of entries before the -1 that may fill the end of an estimated list.
int32_t entries_before_fill(std::span<const int32_t> entries) {
  return static_cast<int32_t>(std::ranges::find(entries, -1) - entries.begin());
}

/// Stage 2, all heads. Reads the lists: only host backends attend so far.
void plan(const PrefillCall& call, PrefillLists& lists) {
  parallel_interleaved(call.executor, static_cast<int64_t>(lists.planned.size()), [&](int64_t i) {
    const VerticalSlashTarget& target = lists.vertical_slash[static_cast<std::size_t>(i)];
    const PlannedHead& planned = lists.planned[static_cast<std::size_t>(i)];
    HeadKeys& head = lists.heads[planned.head_idx];
    head.columns = target.vertical_index;
    head.num_columns = entries_before_fill(
        {target.vertical_index, static_cast<std::size_t>(target.vertical_size)});
    head.runs = planned.runs.data();
    head.num_runs = plan_runs(target.slash_index, target.slash_size, planned.runs.data());
  });
}

void count_tiles(const PrefillCall& call, std::span<const HeadKeys> heads, const TensorArg& tiles) {
  if (is_absent(tiles.tensor)) return;
  write_tiles(heads, call.shape(), head_lists<int64_t>(tiles), call.executor);
}

void prefill(const PrefillCall& call, Workspace workspace, const TensorArg& tiles) {
  WorkspaceAllocator memory(workspace);
  PrefillLists lists = lay_out_lists(call, memory);
  const PrefillStages stages(call, lists);
  const Workspace work = memory.take<std::byte>(stage_bytes(call, stages));
  if (!lists.vertical_slash.empty()) {
    call.backend.estimate_vertical_slash(stages.vertical_slash, work, call.executor);
  }
  if (!lists.block_sparse.empty()) {
    call.backend.estimate_block_sparse(stages.block_sparse, work, call.executor);
  }
  plan(call, lists);
  count_tiles(call, lists.heads, tiles);
  call.backend.attention(stages.attention, work, call.executor);
}

PrefillCall checked_prefill(const TensorArg& q, const TensorArg& k, const Shape& shape,
                            const Patterns& patterns, const minf_vertical_slash_options* estimate,
                            double softmax_scale, const minf_exec* exec) {
  PrefillCall call{.backend = backend_of(q),
                   .executor = checked_executor(exec, *q.tensor),
                   .patterns = patterns};
  call.vertical_slash = estimate_args(shape, q, k, checked_options(estimate), softmax_scale);
  call.block_sparse.shape = shape;
  call.block_sparse.q = const_tokens(q);
  call.block_sparse.k = const_tokens(k);
  call.attention.shape = shape;
  check_attends(call.backend);
  return call;
}

void check_prefill_tiles(const TensorArg& tiles, const AttentionTensors& tensors,
                         const Shape& shape) {
  if (is_absent(tiles.tensor)) return;
  check_tiles(tiles, shape);
  const auto& [q, k, v, out, lse] = tensors;
  check_same_device(tiles, q);
  check_disjoint(tiles, {q, k, v, out, lse});
}

}  // namespace
}  // namespace minference::api

using namespace minference;
using namespace minference::api;

minf_status minf_prefill_attention(const minf_tensor* q, const minf_tensor* k, const minf_tensor* v,
                                   const minf_pattern* patterns, int64_t num_patterns,
                                   const minf_vertical_slash_options* estimate,
                                   const minf_attention_options* options, const minf_tensor* out,
                                   const minf_tensor* lse, const minf_tensor* tiles,
                                   void* workspace, size_t workspace_bytes, const minf_exec* exec) {
  return guarded([&] {
    const AttentionTensors tensors{{"q", q}, {"k", k}, {"v", v}, {"out", out}, {"lse", lse}};
    const TensorArg tiles_arg{"tiles", tiles};
    const Shape shape = checked_attention_tensors(tensors);
    check_prefill_tiles(tiles_arg, tensors, shape);
    const Patterns head_patterns(patterns, num_patterns, shape.num_heads_q, PatternSizes::kRead);
    const double scale = checked_scale(checked_options(options).softmax_scale, shape.head_dim);
    PrefillCall call =
        checked_prefill(tensors.q, tensors.k, shape, head_patterns, estimate, scale, exec);
    call.attention = attention_args(tensors, shape, scale);
    const Workspace memory = checked_workspace(workspace, workspace_bytes, counted_bytes(call));
    if (has_no_rows(shape)) {
      const std::vector<HeadKeys> heads(num_heads_of(shape));
      return count_tiles(call, heads, tiles_arg);
    }
    prefill(call, memory, tiles_arg);
  });
}

minf_status minf_prefill_attention_workspace_bytes(const minf_tensor* q, const minf_tensor* k,
                                                   const minf_pattern* patterns,
                                                   int64_t num_patterns,
                                                   const minf_vertical_slash_options* estimate,
                                                   const minf_exec* exec, size_t* bytes) {
  return guarded([&] {
    const TensorArg q_arg{"q", q}, k_arg{"k", k};
    const Shape shape = check_query_keys(q_arg, k_arg);
    const Patterns head_patterns(patterns, num_patterns, shape.num_heads_q, PatternSizes::kRead);
    const PrefillCall call = checked_prefill(q_arg, k_arg, shape, head_patterns, estimate,
                                             /*softmax_scale=*/1, exec);
    store_workspace_bytes(bytes, counted_bytes(call));
  });
}
