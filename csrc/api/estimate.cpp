// Stage 1 of 3 by itself, one kind for all heads: vertical-slash and block-sparse estimation into
// index tensors. Both call an estimator whose pattern comes from the options, and whose sizes are
// those of the tensors.
// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <vector>

#include "api/backends.h"
#include "api/call.h"
#include "api/tensor.h"
#include "core/check.h"
#include "core/estimator.h"

namespace minference::api {
namespace {

minf_vertical_slash_options read_options(const minf_vertical_slash_options* given) {
  return given == nullptr ? minf_vertical_slash_options_default()
                          : read_struct(*given, "vertical_slash options");
}

minf_block_sparse_options read_options(const minf_block_sparse_options* given) {
  return given == nullptr ? minf_block_sparse_options_default()
                          : read_struct(*given, "block_sparse options");
}

minf_pattern checked_pattern(const minf_vertical_slash_options& options) {
  MINF_CHECK_ARG(options.reserved == 0, "vertical_slash options: expected reserved = 0, got ",
                 options.reserved);
  minf_pattern pattern = default_pattern(MINF_VERTICAL_SLASH);
  pattern.as.vertical_slash.last_q = options.last_q;
  pattern.as.vertical_slash.sink = options.sink;
  pattern.as.vertical_slash.local = options.local;
  pattern.as.vertical_slash.vertical_p = options.vertical_p;
  pattern.as.vertical_slash.slash_p = options.slash_p;
  check_fields(kNoHead, pattern);
  return pattern;
}

minf_pattern checked_pattern(const minf_block_sparse_options& options) {
  minf_pattern pattern = default_pattern(MINF_BLOCK_SPARSE);
  pattern.as.block_sparse.top_k = 1;  // The tensor says how many.
  pattern.as.block_sparse.top_p = options.top_p;
  check_fields(kNoHead, pattern);
  return pattern;
}

/// A call, checked except for its outputs.
class EstimateCall {
 public:
  template <typename Options>
  EstimateCall(const TensorArg& q, const TensorArg& k, const Options& options,
               const minf_exec* exec)
      : shape_(check_query_keys(q, k)),
        executor_(checked_executor(exec, *q.tensor)),
        backend_(backend_of(q)) {
    const minf_pattern pattern = checked_pattern(options);
    args_ = {.shape = shape_,
             .q = const_tokens(q),
             .k = {const_tokens(k)},
             .softmax_scale = checked_scale(options.softmax_scale, shape_.head_dim),
             .pattern = pattern,
             .targets = {}};
    check_rows(backend_, {q, k});
  }

  const Shape& shape() const { return shape_; }
  const minf_pattern& pattern() const { return args_.pattern; }

  /// Work memory for outputs of any size: *_workspace_bytes does not see them.
  std::size_t counted_bytes() const {
    if (has_no_rows(shape_)) return 0;
    const Lengths& lengths = shape_.lengths;
    const ListSizes largest{
        .columns = lengths.seqlen_k, .distances = lengths.seqlen_k, .blocks = lengths.key_blocks()};
    const auto targets = targets_of([&](int32_t batch, int32_t head) {
      return EstimateTarget{.batch = batch, .head = head, .sizes = largest};
    });
    EstimateArgs args = args_;
    args.targets = targets;
    return estimator().workspace_bytes(args, executor_);
  }

  /// Checks the workspace, and that it and `tensors` are on the device. The last check.
  Workspace checked_memory(void* workspace, std::size_t bytes,
                           std::initializer_list<TensorArg> tensors) const {
    const Workspace memory = checked_workspace(workspace, bytes, counted_bytes());
    check_resources(backend_, executor_, tensors, memory);
    return memory;
  }

  /// Estimates all heads; target_of(batch, head) says where the lists of one go.
  template <typename TargetOf>
  void estimate(Workspace memory, const TargetOf& target_of) const {
    if (shape_.batch == 0) return;
    const auto targets = targets_of(target_of);
    EstimateArgs args = args_;
    args.targets = targets;
    estimator().estimate(args, memory, executor_);
  }

 private:
  const Estimator& estimator() const { return estimator_of(backend_, args_.pattern.kind); }

  template <typename TargetOf>
  std::vector<EstimateTarget> targets_of(const TargetOf& target_of) const {
    std::vector<EstimateTarget> targets;
    targets.reserve(num_heads_of(shape_));
    for (int32_t batch = 0; batch < shape_.batch; ++batch) {
      for (int32_t head = 0; head < shape_.num_heads_q; ++head) {
        targets.push_back(target_of(batch, head));
      }
    }
    return targets;
  }

  Shape shape_;
  Executor executor_;
  const Backend& backend_;
  EstimateArgs args_;
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

}  // namespace
}  // namespace minference::api

using namespace minference;
using namespace minference::api;

minf_status minf_estimate_vertical_slash(const minf_tensor* q, const minf_tensor* k,
                                         const minf_vertical_slash_options* options,
                                         const minf_tensor* vertical_index,
                                         const minf_tensor* slash_index, void* workspace,
                                         size_t workspace_bytes, const minf_exec* exec) {
  return guarded([&] {
    const TensorArg q_arg{"q", q}, k_arg{"k", k};
    const TensorArg vertical{"vertical_index", vertical_index}, slash{"slash_index", slash_index};
    const EstimateCall call(q_arg, k_arg, read_options(options), exec);
    check_data(q_arg);
    check_data(k_arg);
    const ListSizes forced =
        pattern_info(MINF_VERTICAL_SLASH).list_sizes(call.pattern(), call.shape().lengths);
    check_index_output(vertical, q_arg, k_arg, forced.columns);
    check_index_output(slash, q_arg, k_arg, forced.distances);
    check_disjoint(vertical, {q_arg, k_arg, slash});
    check_disjoint(slash, {q_arg, k_arg});
    const Workspace memory =
        call.checked_memory(workspace, workspace_bytes, {q_arg, k_arg, vertical, slash});
    const ListSizes sizes{.columns = static_cast<int32_t>(vertical.size(2)),
                          .distances = static_cast<int32_t>(slash.size(2))};
    call.estimate(memory, [&](int32_t batch, int32_t head) {
      return EstimateTarget{.batch = batch,
                            .head = head,
                            .sizes = sizes,
                            .columns = head_entries<int32_t>(vertical, batch, head),
                            .distances = head_entries<int32_t>(slash, batch, head)};
    });
  });
}

minf_status minf_estimate_vertical_slash_workspace_bytes(const minf_tensor* q, const minf_tensor* k,
                                                         const minf_vertical_slash_options* options,
                                                         const minf_exec* exec, size_t* bytes) {
  return guarded([&] {
    const EstimateCall call({"q", q}, {"k", k}, read_options(options), exec);
    store_workspace_bytes(bytes, call.counted_bytes());
  });
}

minf_status minf_estimate_block_sparse(const minf_tensor* q, const minf_tensor* k,
                                       const minf_block_sparse_options* options,
                                       const minf_tensor* block_index, void* workspace,
                                       size_t workspace_bytes, const minf_exec* exec) {
  return guarded([&] {
    const TensorArg q_arg{"q", q}, k_arg{"k", k}, index{"block_index", block_index};
    const EstimateCall call(q_arg, k_arg, read_options(options), exec);
    check_data(q_arg);
    check_data(k_arg);
    check_tensor(index, 4, {MINF_INT32});
    check_same_device(index, q_arg);
    check_shape(index, {q_arg.size(0), q_arg.size(2), call.shape().lengths.row_blocks(), -1},
                "[batch, num_heads_q, ceil(seqlen_q / 64), top_k]");
    MINF_CHECK_ARG(index.size(3) >= 1, "block_index: expected top_k >= 1, got 0");
    check_distinct_elements(index);
    check_data(index);
    check_disjoint(index, {q_arg, k_arg});
    const Workspace memory = call.checked_memory(workspace, workspace_bytes, {q_arg, k_arg, index});
    call.estimate(memory, [&](int32_t batch, int32_t head) {
      return EstimateTarget{.batch = batch,
                            .head = head,
                            .sizes = {.blocks = static_cast<int32_t>(index.size(3))},
                            .blocks = head_entries<int32_t>(index, batch, head),
                            .block_row_stride = index.stride(2)};
    });
  });
}

minf_status minf_estimate_block_sparse_workspace_bytes(const minf_tensor* q, const minf_tensor* k,
                                                       const minf_block_sparse_options* options,
                                                       const minf_exec* exec, size_t* bytes) {
  return guarded([&] {
    const EstimateCall call({"q", q}, {"k", k}, read_options(options), exec);
    store_workspace_bytes(bytes, call.counted_bytes());
  });
}
