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

/// How many heads have lists, and the room that the largest of them needs: lists of all heads of a
/// kind lie in one tensor.
struct ListSizes {
  int32_t vertical_slash_heads = 0;
  int32_t columns = 0;
  int32_t distances = 0;
  int32_t runs = 0;
  int32_t block_sparse_heads = 0;
  int32_t blocks = 0;
};

/// Patterns and lists of a call, and what fills them. Lists are in the workspace; null while it is
/// counted.
struct PrefillLists {
  std::vector<HeadKeys> patterns;  // One per query head, or one for all.
  ListSizes sizes;
  IndexLists index;
  PlanArgs plan;
  std::vector<VerticalSlashTarget> vertical_slash;
  std::vector<BlockSparseTarget> block_sparse;
  std::vector<std::span<int32_t>> uneven;  // Lists that are not filled to their end.
};

/// What a pattern asks of the lists; 0 where it has none.
struct HeadSizes {
  int32_t columns = 0;
  int32_t distances = 0;
  int32_t blocks = 0;
};

HeadSizes head_sizes(const PrefillCall& call, const minf_pattern& pattern) {
  const Lengths& lengths = call.shape().lengths;
  switch (pattern.kind) {
    case MINF_VERTICAL_SLASH:
      return {.columns = clamped_size(pattern.a, call.vertical_slash.sink, lengths),
              .distances = clamped_size(pattern.b, call.vertical_slash.local, lengths)};
    case MINF_BLOCK_SPARSE:
      return {.blocks = std::min(pattern.a, lengths.key_blocks())};
    default:
      return {};
  }
}

/// Gives each head that has lists its place in their tensors: a head without takes no room.
void place_heads(const PrefillCall& call, PrefillLists& lists) {
  ListSizes& sizes = lists.sizes;
  lists.patterns = pattern_keys(call.patterns);
  const int32_t heads_per_pattern = call.patterns.size() == 1 ? call.shape().num_heads_q : 1;
  for (HeadKeys& pattern : lists.patterns) {
    const HeadSizes head = head_sizes(call, call.patterns[pattern.list_head]);
    sizes.columns = std::max(sizes.columns, head.columns);
    sizes.distances = std::max(sizes.distances, head.distances);
    sizes.blocks = std::max(sizes.blocks, head.blocks);
    if (pattern.kind == PatternKind::kVerticalSlash) {
      pattern.list_head = sizes.vertical_slash_heads;
      sizes.vertical_slash_heads += heads_per_pattern;
    } else if (pattern.kind == PatternKind::kBlockSparse) {
      pattern.list_head = sizes.block_sparse_heads;
      sizes.block_sparse_heads += heads_per_pattern;
    }
  }
  sizes.runs = static_cast<int32_t>(max_runs(sizes.distances, call.shape().lengths.seqlen_k));
}

/// Lists of `heads` heads of each batch entry, one after the other, `elements` each; callers see
/// `size` entries of one.
template <typename T>
HeadLists<T> take_lists(WorkspaceAllocator& memory, int64_t batch, int64_t heads, int64_t elements,
                        int32_t size) {
  const auto bytes = static_cast<int64_t>(sizeof(T)) * elements;
  return {.data = memory
                      .take<T>(static_cast<std::size_t>(batch) * static_cast<std::size_t>(heads) *
                               static_cast<std::size_t>(elements))
                      .data(),
          .batch_stride_bytes = bytes * heads,
          .head_stride_bytes = bytes,
          .size = size};
}

template <typename T>
HeadLists<const T> as_const(const HeadLists<T>& lists) {
  return {lists.data, lists.batch_stride_bytes, lists.head_stride_bytes, lists.size};
}

/// Entries of all lists.
std::span<int32_t> entries_of(const HeadLists<int32_t>& lists, int64_t batch) {
  return {lists.data, static_cast<std::size_t>(batch * lists.batch_stride_bytes / 4)};
}

/// The lists of all heads of each kind.
struct ListMemory {
  HeadLists<int32_t> columns, distances, run_count, blocks;
  HeadLists<Run> runs;
};

ListMemory take_list_memory(const Shape& shape, const ListSizes& sizes,
                            WorkspaceAllocator& memory) {
  const int64_t batch = shape.batch, heads = sizes.vertical_slash_heads;
  ListMemory lists;
  lists.columns = take_lists<int32_t>(memory, batch, heads, sizes.columns, sizes.columns);
  lists.distances = take_lists<int32_t>(memory, batch, heads, sizes.distances, sizes.distances);
  lists.runs = take_lists<Run>(memory, batch, heads, sizes.runs, sizes.runs);
  lists.run_count = take_lists<int32_t>(memory, batch, heads, /*elements=*/1, /*size=*/1);
  lists.blocks =
      take_lists<int32_t>(memory, batch, sizes.block_sparse_heads,
                          int64_t{shape.lengths.row_blocks()} * sizes.blocks, sizes.blocks);
  return lists;
}

/// Says which lists the stages fill for each head.
void add_targets(const PrefillCall& call, const ListMemory& memory, PrefillLists& lists) {
  for (int32_t batch = 0; batch < call.shape().batch; ++batch) {
    for (int32_t head = 0; head < call.shape().num_heads_q; ++head) {
      const HeadKeys pattern = pattern_of_head(lists.patterns, head);
      const HeadSizes sizes = head_sizes(call, call.patterns[head]);
      if (pattern.kind == PatternKind::kVerticalSlash) {
        lists.vertical_slash.push_back(
            {.batch = batch,
             .head = head,
             .vertical_size = sizes.columns,
             .slash_size = sizes.distances,
             .vertical_index = memory.columns.at(batch, pattern.list_head),
             .slash_index = memory.distances.at(batch, pattern.list_head)});
      } else if (pattern.kind == PatternKind::kBlockSparse) {
        lists.block_sparse.push_back({.batch = batch,
                                      .head = head,
                                      .top_k = sizes.blocks,
                                      .row_stride = lists.sizes.blocks,
                                      .block_index = memory.blocks.at(batch, pattern.list_head)});
      }
    }
  }
}

/// Names the lists that a target does not fill to their end.
void add_uneven(const Shape& shape, const ListMemory& memory, PrefillLists& lists) {
  const auto add_if = [&](bool uneven, const HeadLists<int32_t>& of) {
    if (uneven) lists.uneven.push_back(entries_of(of, shape.batch));
  };
  const ListSizes& sizes = lists.sizes;
  const auto some_shorter = [](const auto& targets, auto size, int32_t most) {
    return std::ranges::any_of(targets, [=](int32_t filled) { return filled < most; }, size);
  };
  add_if(some_shorter(lists.vertical_slash, &VerticalSlashTarget::vertical_size, sizes.columns),
         memory.columns);
  add_if(some_shorter(lists.vertical_slash, &VerticalSlashTarget::slash_size, sizes.distances),
         memory.distances);
  add_if(some_shorter(lists.block_sparse, &BlockSparseTarget::top_k, sizes.blocks), memory.blocks);
}

/// Takes index memory for every head: once counting, once for the call.
PrefillLists lay_out_lists(const PrefillCall& call, WorkspaceAllocator& allocator) {
  const Shape& shape = call.shape();
  PrefillLists lists;
  place_heads(call, lists);
  const ListMemory memory = take_list_memory(shape, lists.sizes, allocator);
  lists.plan = {.batch = shape.batch,
                .num_heads_q = lists.sizes.vertical_slash_heads,
                .seqlen_k = shape.lengths.seqlen_k,
                .slash_index = as_const(memory.distances),
                .runs = memory.runs,
                .run_count = memory.run_count};
  lists.index = {.columns = as_const(memory.columns),
                 .runs = as_const(memory.runs),
                 .run_count = as_const(memory.run_count),
                 .blocks = as_const(memory.blocks),
                 .block_row_stride = lists.sizes.blocks};
  add_targets(call, memory, lists);
  add_uneven(shape, memory, lists);
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
    attention.patterns = lists.patterns;
    attention.index = lists.index;
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

/// Tiles of all heads, if they are asked for.
void count_tiles(const PrefillCall& call, std::span<const HeadKeys> patterns,
                 const IndexLists& index, const TensorArg& tiles) {
  if (is_absent(tiles.tensor) || call.shape().batch == 0) return;
  call.backend.count_key_tiles({.shape = call.shape(),
                                .patterns = patterns,
                                .index = index,
                                .tiles = head_lists<int64_t>(tiles)},
                               call.executor);
}

void prefill(const PrefillCall& call, Workspace workspace, const TensorArg& tiles) {
  const Backend& backend = call.backend;
  WorkspaceAllocator memory(workspace);
  const PrefillLists lists = lay_out_lists(call, memory);
  const PrefillStages stages(call, lists);
  const Workspace work = memory.take<std::byte>(stage_bytes(call, stages));
  for (const std::span<int32_t> uneven : lists.uneven) backend.fill_lists(uneven, call.executor);
  if (!lists.vertical_slash.empty()) {
    backend.estimate_vertical_slash(stages.vertical_slash, work, call.executor);
    backend.plan_vertical_slash(lists.plan, call.executor);
  }
  if (!lists.block_sparse.empty()) {
    backend.estimate_block_sparse(stages.block_sparse, work, call.executor);
  }
  count_tiles(call, lists.patterns, lists.index, tiles);
  backend.attention(stages.attention, work, call.executor);
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
  check_rows(call.backend, {q, k});
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
    check_attention_rows(call.backend, tensors);
    const Workspace memory = checked_workspace(workspace, workspace_bytes, counted_bytes(call));
    check_resources(call.backend, call.executor,
                    {tensors.q, tensors.k, tensors.v, tensors.out, tensors.lse, tiles_arg}, memory);
    if (has_no_rows(shape)) {
      const HeadKeys no_lists;
      return count_tiles(call, {&no_lists, 1}, /*index=*/{}, tiles_arg);
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
