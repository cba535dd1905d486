// Stages 1 and 2 for heads that each have their own pattern, and the public function that does
// them.
// SPDX-License-Identifier: Apache-2.0
#include "api/build_index.h"

#include <algorithm>

#include "api/backends.h"
#include "core/check.h"
#include "core/runs.h"

namespace minference::api {
namespace {

/// Gives each head that has lists its place in their tensors.
void place_heads(const IndexCall& call, IndexLayout& layout) {
  const int32_t heads_per_pattern = call.patterns.size() == 1 ? call.shape.num_heads_q : 1;
  for (int64_t head = 0; head < call.patterns.size(); ++head) {
    const minf_pattern& pattern = call.patterns[head];
    const PatternInfo& info = pattern_info(pattern.kind);
    HeadKeys& keys = layout.patterns.emplace_back(info.head_keys(pattern));
    const ListSizes sizes = info.list_sizes(pattern, call.shape.lengths);
    layout.sizes.columns = std::max(layout.sizes.columns, sizes.columns);
    layout.sizes.distances = std::max(layout.sizes.distances, sizes.distances);
    layout.sizes.blocks = std::max(layout.sizes.blocks, sizes.blocks);
    if (keys.form == Form::kShape) continue;
    int32_t& heads = keys.form == Form::kRuns ? layout.run_heads : layout.block_heads;
    keys.list_head = heads;
    heads += heads_per_pattern;
  }
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

void take_list_memory(const Shape& shape, WorkspaceAllocator& memory, IndexLayout& layout) {
  const int64_t batch = shape.batch, heads = layout.run_heads;
  const ListSizes& sizes = layout.sizes;
  const auto runs = static_cast<int32_t>(max_runs(sizes.distances, shape.lengths.seqlen_k));
  layout.columns = take_lists<int32_t>(memory, batch, heads, sizes.columns, sizes.columns);
  layout.distances = take_lists<int32_t>(memory, batch, heads, sizes.distances, sizes.distances);
  layout.runs = take_lists<Run>(memory, batch, heads, runs, runs);
  layout.run_count = take_lists<int32_t>(memory, batch, heads, /*elements=*/1, /*size=*/1);
  layout.blocks =
      take_lists<int32_t>(memory, batch, layout.block_heads,
                          int64_t{shape.lengths.row_blocks()} * sizes.blocks, sizes.blocks);
}

EstimateGroup& group_of(const IndexCall& call, const minf_pattern& pattern, IndexLayout& layout) {
  for (EstimateGroup& group : layout.groups) {
    if (have_same_options(group.pattern, pattern)) return group;
  }
  return layout.groups.emplace_back(EstimateGroup{
      .estimator = &estimator_of(call.backend, pattern.kind), .pattern = pattern, .targets = {}});
}

/// Says which lists stage 1 fills for each head.
void add_targets(const IndexCall& call, IndexLayout& layout) {
  for (int32_t batch = 0; batch < call.shape.batch; ++batch) {
    for (int32_t head = 0; head < call.shape.num_heads_q; ++head) {
      const minf_pattern& pattern = call.patterns[head];
      const PatternInfo& info = pattern_info(pattern.kind);
      if (!info.is_estimated) continue;
      EstimateTarget target{.batch = batch,
                            .head = head,
                            .sizes = info.list_sizes(pattern, call.shape.lengths),
                            .block_row_stride = layout.sizes.blocks};
      const int32_t list_head = pattern_of_head(layout.patterns, head).list_head;
      if (info.form == Form::kRuns) {
        target.columns = layout.columns.at(batch, list_head);
        target.distances = layout.distances.at(batch, list_head);
      } else {
        target.blocks = layout.blocks.at(batch, list_head);
      }
      group_of(call, pattern, layout).targets.push_back(target);
    }
  }
}

/// Collects the lists that some target does not fill to their end.
void add_uneven(const Shape& shape, IndexLayout& layout) {
  const auto add = [&](const HeadLists<int32_t>& lists, int32_t ListSizes::* size, Form form) {
    const bool uneven = std::ranges::any_of(layout.groups, [&](const EstimateGroup& group) {
      return pattern_info(group.pattern.kind).form == form &&
             std::ranges::any_of(group.targets, [&](const EstimateTarget& target) {
               return target.sizes.*size < layout.sizes.*size;
             });
    });
    if (!uneven) return;
    layout.uneven.emplace_back(
        lists.data, static_cast<std::size_t>(shape.batch * lists.batch_stride_bytes / 4));
  };
  add(layout.columns, &ListSizes::columns, Form::kRuns);
  add(layout.distances, &ListSizes::distances, Form::kRuns);
  add(layout.blocks, &ListSizes::blocks, Form::kBlocks);
}

template <typename T>
HeadLists<const T> as_const(const HeadLists<T>& lists) {
  return {lists.data, lists.batch_stride_bytes, lists.head_stride_bytes, lists.size};
}

EstimateArgs estimate_args(const IndexCall& call, const EstimateGroup& group) {
  return {.shape = call.shape,
          .q = call.q,
          .k = call.k,
          .softmax_scale = call.softmax_scale,
          .pattern = group.pattern,
          .targets = group.targets};
}

/// A view of lists as an index tensor, [batch, heads, dims...]; absent if no head has any. A list
/// of T is `sizeof(T) / 4` entries of the tensor wide.
template <typename T>
minf_tensor tensor_of(const HeadLists<T>& lists, const minf_tensor& q, int64_t heads,
                      std::initializer_list<int64_t> dims, std::initializer_list<int64_t> strides) {
  minf_tensor tensor{};
  if (heads == 0) return tensor;
  tensor.data = lists.data;
  tensor.dtype = MINF_INT32;
  tensor.device_type = q.device_type;
  tensor.device_index = q.device_index;
  tensor.ndim = static_cast<int32_t>(2 + dims.size());
  tensor.shape[0] = q.shape[0];
  tensor.shape[1] = heads;
  tensor.stride[0] = std::max<int64_t>(lists.batch_stride_bytes / 4, 1);
  tensor.stride[1] = std::max<int64_t>(lists.head_stride_bytes / 4, 1);
  std::ranges::copy(dims, &tensor.shape[2]);
  std::ranges::copy(strides, &tensor.stride[2]);
  return tensor;
}

void fill_index(const IndexCall& call, const IndexLayout& layout, const minf_tensor& q,
                const minf_pattern* patterns, minf_sparse_index& index) {
  const ListSizes& sizes = layout.sizes;
  index.patterns = patterns;
  index.num_patterns = call.patterns.size();
  index.vertical_index = tensor_of(layout.columns, q, layout.run_heads, {sizes.columns}, {1});
  index.runs = tensor_of(layout.runs, q, layout.run_heads, {layout.runs.size, 2}, {2, 1});
  index.run_count = tensor_of(layout.run_count, q, layout.run_heads, {}, {});
  index.block_index =
      tensor_of(layout.blocks, q, layout.block_heads,
                {call.shape.lengths.row_blocks(), sizes.blocks}, {std::max(sizes.blocks, 1), 1});
}

}  // namespace

IndexLists IndexLayout::index() const {
  return {.columns = as_const(columns),
          .runs = as_const(runs),
          .run_count = as_const(run_count),
          .blocks = as_const(blocks),
          .block_row_stride = sizes.blocks};
}

IndexCall checked_index_call(const TensorArg& q, const TensorArg& k, const Shape& shape,
                             const minf_pattern* patterns, int64_t num_patterns,
                             double softmax_scale, const minf_exec* exec) {
  IndexCall call{
      .backend = backend_of(q),
      .executor = checked_executor(exec, *q.tensor),
      .patterns = Patterns(patterns, num_patterns, shape.num_heads_q, PatternSizes::kRead),
      .shape = shape,
      .q = const_tokens(q),
      .k = {const_tokens(k)},
      .softmax_scale = softmax_scale};
  check_rows(call.backend, {q, k});
  return call;
}

IndexLayout lay_out_index(const IndexCall& call, WorkspaceAllocator& memory) {
  IndexLayout layout;
  place_heads(call, layout);
  take_list_memory(call.shape, memory, layout);
  add_targets(call, layout);
  add_uneven(call.shape, layout);
  return layout;
}

std::size_t index_work_bytes(const IndexCall& call, const IndexLayout& layout) {
  std::size_t bytes = 0;
  if (has_no_rows(call.shape)) return bytes;
  for (const EstimateGroup& group : layout.groups) {
    bytes = std::max(bytes,
                     group.estimator->workspace_bytes(estimate_args(call, group), call.executor));
  }
  return bytes;
}

void build_index(const IndexCall& call, const IndexLayout& layout, Workspace work) {
  const Backend& backend = call.backend;
  for (const std::span<int32_t> lists : layout.uneven) backend.fill_lists(lists, call.executor);
  for (const EstimateGroup& group : layout.groups) {
    group.estimator->estimate(estimate_args(call, group), work, call.executor);
  }
  if (layout.run_heads == 0) return;
  backend.plan_vertical_slash({.batch = call.shape.batch,
                               .num_heads_q = layout.run_heads,
                               .seqlen_k = call.shape.lengths.seqlen_k,
                               .slash_index = as_const(layout.distances),
                               .runs = layout.runs,
                               .run_count = layout.run_count},
                              call.executor);
}

}  // namespace minference::api

using namespace minference;
using namespace minference::api;

minf_status minf_build_index(const minf_tensor* q, const minf_tensor* k,
                             const minf_pattern* patterns, int64_t num_patterns,
                             const minf_attention_options* options, minf_sparse_index* index,
                             void* index_memory, size_t index_bytes, void* workspace,
                             size_t workspace_bytes, const minf_exec* exec) {
  return guarded([&] {
    const TensorArg q_arg{"q", q}, k_arg{"k", k};
    const Shape shape = check_query_keys(q_arg, k_arg);
    const double scale = checked_scale(checked_options(options).softmax_scale, shape.head_dim);
    const IndexCall call =
        checked_index_call(q_arg, k_arg, shape, patterns, num_patterns, scale, exec);
    check_data(q_arg);
    check_data(k_arg);
    MINF_CHECK_ARG(index != nullptr, "index: expected a struct to fill, got null");
    read_struct(*index, "index");
    WorkspaceAllocator counted;
    const std::size_t work_bytes = index_work_bytes(call, lay_out_index(call, counted));
    const Workspace lists =
        checked_workspace(index_memory, index_bytes, counted.bytes(), "index_memory");
    const Workspace work = checked_workspace(workspace, workspace_bytes, work_bytes);
    check_resources(call.backend, call.executor, {q_arg, k_arg}, work, lists);
    WorkspaceAllocator memory(lists);
    const IndexLayout layout = lay_out_index(call, memory);
    if (shape.batch > 0) build_index(call, layout, work);
    fill_index(call, layout, *q, patterns, *index);
  });
}

minf_status minf_build_index_bytes(const minf_tensor* q, const minf_tensor* k,
                                   const minf_pattern* patterns, int64_t num_patterns,
                                   const minf_exec* exec, size_t* index_bytes,
                                   size_t* workspace_bytes) {
  return guarded([&] {
    const TensorArg q_arg{"q", q}, k_arg{"k", k};
    const Shape shape = check_query_keys(q_arg, k_arg);
    const IndexCall call = checked_index_call(q_arg, k_arg, shape, patterns, num_patterns,
                                              /*softmax_scale=*/1, exec);
    WorkspaceAllocator memory;
    const std::size_t work = index_work_bytes(call, lay_out_index(call, memory));
    store_workspace_bytes(index_bytes, memory.bytes(), "index_bytes");
    store_workspace_bytes(workspace_bytes, work, "workspace_bytes");
  });
}
