// Stage 1 of 3, the public functions: vertical-slash and block-sparse estimation.
// SPDX-License-Identifier: Apache-2.0
#include "api/estimate.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "api/call.h"
#include "api/device.h"
#include "api/status.h"
#include "core/check.h"

namespace minference::api {

int32_t clamped_size(int64_t requested, int32_t forced, const Lengths& lengths) {
  return static_cast<int32_t>(
      std::min<int64_t>(lengths.seqlen_k, std::max<int64_t>(requested, forced)));
}

EstimateVerticalSlashArgs estimate_args(const Shape& shape, const TensorArg& q, const TensorArg& k,
                                        const minf_vertical_slash_options& options,
                                        double softmax_scale) {
  return {.shape = shape,
          .q = const_tokens(q),
          .k = const_tokens(k),
          .softmax_scale = softmax_scale,
          .last_q = std::min(options.last_q, shape.lengths.seqlen_q),
          .sink = std::min(options.sink, shape.lengths.seqlen_k),
          .local = std::min(options.local, shape.lengths.seqlen_k),
          .vertical_p = options.vertical_p,
          .slash_p = options.slash_p,
          .targets = {}};
}

namespace {

/// One target per (batch, query head), made by target_of(batch, head).
template <typename TargetOf>
auto targets_of(const Shape& shape, const TargetOf& target_of) {
  std::vector<decltype(target_of(0, 0))> targets;
  targets.reserve(num_heads_of(shape));
  for (int32_t batch = 0; batch < shape.batch; ++batch) {
    for (int32_t head = 0; head < shape.num_heads_q; ++head) {
      targets.push_back(target_of(batch, head));
    }
  }
  return targets;
}

// ---- vertical_slash

/// A call, checked but for its outputs.
struct VerticalSlashCall {
  VerticalSlashCall(const TensorArg& q, const TensorArg& k,
                    const minf_vertical_slash_options* caller_options, const minf_exec* exec)
      : shape(check_query_keys(q, k)), executor(checked_executor(exec, *q.tensor)) {
    const minf_vertical_slash_options options = checked_options(caller_options);
    args =
        estimate_args(shape, q, k, options, checked_scale(options.softmax_scale, shape.head_dim));
    backend = &backend_of(q);
    check_rows(*backend, {q, k});
  }

  /// Work memory whatever the sizes of the outputs, which *_workspace_bytes does not see.
  std::size_t counted_bytes() const {
    if (has_no_rows(shape)) return 0;
    const int32_t seqlen_k = shape.lengths.seqlen_k;
    const auto targets = targets_of(shape, [&](int32_t batch, int32_t head) {
      return VerticalSlashTarget{
          .batch = batch, .head = head, .vertical_size = seqlen_k, .slash_size = seqlen_k};
    });
    EstimateVerticalSlashArgs largest = args;
    largest.targets = targets;
    return backend->estimate_vertical_slash_bytes(largest, executor);
  }

  Shape shape;
  Executor executor;
  EstimateVerticalSlashArgs args;
  const Backend* backend = nullptr;
};

void check_index_output(const TensorArg& index, const TensorArg& q, const TensorArg& k,
                        int32_t least) {
  check_tensor(index, 3, {MINF_INT32});
  check_same_device(index, q);
  check_shape(index, {q.size(0), q.size(2), -1}, "[batch, num_heads_q, size]");
  MINF_CHECK_ARG(index.size(2) >= least && index.size(2) <= k.size(1), index.name,
                 ": expected a size in [", least, ", seqlen_k = ", k.size(1), "], got ",
                 index.size(2));
  check_distinct_elements(index);
  check_data(index);
}

void run(const VerticalSlashCall& call, const TensorArg& vertical_index,
         const TensorArg& slash_index, Workspace memory) {
  if (call.shape.batch == 0) return;
  const auto targets = targets_of(call.shape, [&](int32_t batch, int32_t head) {
    return VerticalSlashTarget{.batch = batch,
                               .head = head,
                               .vertical_size = static_cast<int32_t>(vertical_index.size(2)),
                               .slash_size = static_cast<int32_t>(slash_index.size(2)),
                               .vertical_index = head_entries<int32_t>(vertical_index, batch, head),
                               .slash_index = head_entries<int32_t>(slash_index, batch, head)};
  });
  EstimateVerticalSlashArgs args = call.args;
  args.targets = targets;
  call.backend->estimate_vertical_slash(args, memory, call.executor);
}

// ---- block_sparse

/// A call, checked but for its output.
struct BlockSparseCall {
  BlockSparseCall(const TensorArg& q, const TensorArg& k,
                  const minf_block_sparse_options* caller_options, const minf_exec* exec)
      : shape(check_query_keys(q, k)), executor(checked_executor(exec, *q.tensor)) {
    const minf_block_sparse_options options = checked_options(caller_options);
    args = {.shape = shape,
            .q = const_tokens(q),
            .k = const_tokens(k),
            .softmax_scale = checked_scale(options.softmax_scale, shape.head_dim),
            .top_p = options.top_p,
            .targets = {}};
    backend = &backend_of(q);
    check_rows(*backend, {q, k});
  }

  /// Work memory whatever the size of the output, which *_workspace_bytes does not see.
  std::size_t counted_bytes() const {
    if (has_no_rows(shape)) return 0;
    const auto targets = targets_of(shape, [&](int32_t batch, int32_t head) {
      return BlockSparseTarget{.batch = batch, .head = head, .top_k = shape.lengths.key_blocks()};
    });
    EstimateBlockSparseArgs largest = args;
    largest.targets = targets;
    return backend->estimate_block_sparse_bytes(largest, executor);
  }

  Shape shape;
  Executor executor;
  EstimateBlockSparseArgs args;
  const Backend* backend = nullptr;
};

void run(const BlockSparseCall& call, const TensorArg& block_index, Workspace memory) {
  if (has_no_rows(call.shape)) return;
  const auto targets = targets_of(call.shape, [&](int32_t batch, int32_t head) {
    return BlockSparseTarget{.batch = batch,
                             .head = head,
                             .top_k = static_cast<int32_t>(block_index.size(3)),
                             .row_stride = block_index.stride(2),
                             .block_index = head_entries<int32_t>(block_index, batch, head)};
  });
  EstimateBlockSparseArgs args = call.args;
  args.targets = targets;
  call.backend->estimate_block_sparse(args, memory, call.executor);
}

}  // namespace
}  // namespace minference::api

using namespace minference;
using namespace minference::api;

minf_vertical_slash_options minf_vertical_slash_options_default(void) {
  return {.struct_size = sizeof(minf_vertical_slash_options),
          .softmax_scale = nullptr,
          .last_q = 64,
          .sink = 30,
          .local = 100,
          .reserved = 0,
          .vertical_p = 1,
          .slash_p = 1};
}

minf_status minf_estimate_vertical_slash(const minf_tensor* q, const minf_tensor* k,
                                         const minf_vertical_slash_options* options,
                                         const minf_tensor* vertical_index,
                                         const minf_tensor* slash_index, void* workspace,
                                         size_t workspace_bytes, const minf_exec* exec) {
  return guarded([&] {
    const TensorArg q_arg{"q", q}, k_arg{"k", k};
    const TensorArg vertical{"vertical_index", vertical_index}, slash{"slash_index", slash_index};
    const VerticalSlashCall call(q_arg, k_arg, options, exec);
    check_data(q_arg);
    check_data(k_arg);
    check_index_output(vertical, q_arg, k_arg, call.args.sink);
    check_index_output(slash, q_arg, k_arg, call.args.local);
    check_disjoint(vertical, {q_arg, k_arg, slash});
    check_disjoint(slash, {q_arg, k_arg});
    const Workspace memory = checked_workspace(workspace, workspace_bytes, call.counted_bytes());
    check_resources(*call.backend, call.executor, {q_arg, k_arg, vertical, slash}, memory);
    run(call, vertical, slash, memory);
  });
}

minf_status minf_estimate_vertical_slash_workspace_bytes(const minf_tensor* q, const minf_tensor* k,
                                                         const minf_vertical_slash_options* options,
                                                         const minf_exec* exec, size_t* bytes) {
  return guarded([&] {
    store_workspace_bytes(bytes,
                          VerticalSlashCall({"q", q}, {"k", k}, options, exec).counted_bytes());
  });
}

minf_block_sparse_options minf_block_sparse_options_default(void) {
  return {.struct_size = sizeof(minf_block_sparse_options), .softmax_scale = nullptr, .top_p = 1};
}

minf_status minf_estimate_block_sparse(const minf_tensor* q, const minf_tensor* k,
                                       const minf_block_sparse_options* options,
                                       const minf_tensor* block_index, void* workspace,
                                       size_t workspace_bytes, const minf_exec* exec) {
  return guarded([&] {
    const TensorArg q_arg{"q", q}, k_arg{"k", k}, index{"block_index", block_index};
    const BlockSparseCall call(q_arg, k_arg, options, exec);
    check_data(q_arg);
    check_data(k_arg);
    check_tensor(index, 4, {MINF_INT32});
    check_same_device(index, q_arg);
    check_shape(index, {q_arg.size(0), q_arg.size(2), call.shape.lengths.row_blocks(), -1},
                "[batch, num_heads_q, ceil(seqlen_q / 64), top_k]");
    MINF_CHECK_ARG(index.size(3) >= 1, "block_index: expected top_k >= 1, got 0");
    check_distinct_elements(index);
    check_data(index);
    check_disjoint(index, {q_arg, k_arg});
    const Workspace memory = checked_workspace(workspace, workspace_bytes, call.counted_bytes());
    check_resources(*call.backend, call.executor, {q_arg, k_arg, index}, memory);
    run(call, index, memory);
  });
}

minf_status minf_estimate_block_sparse_workspace_bytes(const minf_tensor* q, const minf_tensor* k,
                                                       const minf_block_sparse_options* options,
                                                       const minf_exec* exec, size_t* bytes) {
  return guarded([&] {
    store_workspace_bytes(bytes,
                          BlockSparseCall({"q", q}, {"k", k}, options, exec).counted_bytes());
  });
}
