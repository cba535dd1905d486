// Stage 3 of 3, the public function: attention over a given index.
// SPDX-License-Identifier: Apache-2.0
#include "api/attention.h"

#include <vector>

#include "api/backends.h"
#include "api/sparse_index.h"
#include "core/check.h"

namespace minference::api {

void check_values(const TensorArg& v, const TensorArg& q, const TensorArg& k, Shape& shape) {
  check_tensor(v, 4, {MINF_FLOAT32, MINF_BFLOAT16, MINF_FLOAT16});
  check_same_dtype(v, q);
  check_same_device(v, q);
  check_shape(v, {k.size(0), k.size(1), k.size(2), -1},
              "[batch, seqlen_k, num_heads_kv, head_dim_v]");
  shape.head_dim_v = checked_head_dim(v, "head_dim_v");
}

Shape checked_attention_tensors(const AttentionTensors& tensors) {
  const auto& [q, k, v, out, lse] = tensors;
  Shape shape = check_query_keys(q, k);
  check_values(v, q, k, shape);
  check_tensor(out, 4, {MINF_FLOAT32, MINF_BFLOAT16, MINF_FLOAT16});
  check_same_dtype(out, q);
  check_same_device(out, q);
  check_shape(out, {q.size(0), q.size(1), q.size(2), shape.head_dim_v},
              "[batch, seqlen_q, num_heads_q, head_dim_v]");
  if (!is_absent(lse.tensor)) {
    check_tensor(lse, 3, {MINF_FLOAT32});
    check_same_device(lse, q);
    check_shape(lse, {q.size(0), q.size(2), q.size(1)}, "[batch, num_heads_q, seqlen_q]");
    check_distinct_elements(lse);
    check_data(lse);
  }
  check_distinct_elements(out);
  for (const TensorArg* arg : {&q, &k, &v, &out}) check_data(*arg);
  check_disjoint(out, {q, k, v, lse});
  check_disjoint(lse, {q, k, v});
  return shape;
}

void check_attention_rows(const Backend& backend, const AttentionTensors& tensors) {
  check_rows(backend, {tensors.q, tensors.k, tensors.v, tensors.out});
}

AttentionArgs attention_args(const AttentionTensors& tensors, const Shape& shape,
                             double softmax_scale) {
  return {.shape = shape,
          .q = const_tokens(tensors.q),
          .k = {const_tokens(tensors.k)},
          .v = {const_tokens(tensors.v)},
          .out = tokens(tensors.out),
          .lse = row_values(tensors.lse),
          .softmax_scale = softmax_scale,
          .patterns = {},
          .index = {}};
}

}  // namespace minference::api

using namespace minference;
using namespace minference::api;

minf_status minf_sparse_attention(const minf_tensor* q, const minf_tensor* k, const minf_tensor* v,
                                  const minf_sparse_index* index,
                                  const minf_attention_options* options, const minf_tensor* out,
                                  const minf_tensor* lse, void* workspace, size_t workspace_bytes,
                                  const minf_exec* exec) {
  return guarded([&] {
    const AttentionTensors tensors{{"q", q}, {"k", k}, {"v", v}, {"out", out}, {"lse", lse}};
    const Shape shape = checked_attention_tensors(tensors);
    const minf_sparse_index known_index = read_index(index);
    const Patterns patterns = checked_patterns(known_index, shape.num_heads_q);
    const IndexTensors index_tensors(known_index);
    check_index_tensors(index_tensors, patterns, shape, /*reference=*/tensors.q);
    for (const TensorArg& arg : index_tensors.all()) {
      check_disjoint(tensors.out, arg);
      check_disjoint(tensors.lse, arg);
    }
    const double scale = checked_scale(checked_options(options).softmax_scale, shape.head_dim);
    const Executor executor = checked_executor(exec, *q);
    const Backend& backend = backend_of(tensors.q);
    check_attention_rows(backend, tensors);
    const std::vector<HeadKeys> keys = pattern_keys(patterns, index_tensors);
    AttentionArgs args = attention_args(tensors, shape, scale);
    args.patterns = keys;
    args.index = index_lists(index_tensors);
    const bool empty = has_no_rows(shape);
    const Workspace memory = checked_workspace(
        workspace, workspace_bytes, empty ? 0 : attention_bytes(backend, args, executor));
    check_resources(
        backend, executor,
        {tensors.q, tensors.k, tensors.v, tensors.out, tensors.lse, index_tensors.vertical_index,
         index_tensors.runs, index_tensors.run_count, index_tensors.block_index},
        memory);
    if (!empty) attend(backend, args, memory, executor);
  });
}

minf_status minf_sparse_attention_workspace_bytes(const minf_tensor* q, const minf_tensor* k,
                                                  const minf_sparse_index* index,
                                                  const minf_exec* exec, size_t* bytes) {
  return guarded([&] {
    const TensorArg q_arg{"q", q}, k_arg{"k", k};
    const Shape shape = check_query_keys(q_arg, k_arg);
    const minf_sparse_index known_index = read_index(index);
    const Patterns patterns = checked_patterns(known_index, shape.num_heads_q);
    const Executor executor = checked_executor(exec, *q);
    const Backend& backend = backend_of(q_arg);
    check_rows(backend, {q_arg, k_arg});
    if (has_no_rows(shape)) return store_workspace_bytes(bytes, /*counted=*/0);

    const std::vector<HeadKeys> keys = pattern_keys(patterns, IndexTensors(known_index));
    AttentionArgs args;
    args.shape = shape;
    args.patterns = keys;
    if (!is_absent(&known_index.vertical_index)) {
      const TensorArg columns{"vertical_index", &known_index.vertical_index};
      check_tensor(columns, 3, {MINF_INT32});
      args.index.columns.size = static_cast<int32_t>(columns.size(2));
    }
    store_workspace_bytes(bytes, attention_bytes(backend, args, executor));
  });
}
