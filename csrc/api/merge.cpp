// Merging two attention results over disjoint key sets, the public function.
// SPDX-License-Identifier: Apache-2.0
#include <initializer_list>

#include "api/backends.h"
#include "api/call.h"
#include "api/tensor.h"
#include "core/backend.h"
#include "core/check.h"

namespace minference::api {
namespace {

/// Checks an output that may be one of the inputs it is merged from, but must not overlap them
/// otherwise.
void check_in_place(const TensorArg& output, std::initializer_list<TensorArg> merged) {
  check_distinct_elements(output);
  for (const TensorArg& input : merged) {
    if (!is_same_view(output, input)) check_disjoint(output, input);
  }
}

struct MergeTensors {
  TensorArg out_a, lse_a, out_b, lse_b, out, lse;
};

Shape checked_merge(const MergeTensors& tensors) {
  const auto& [out_a, lse_a, out_b, lse_b, out, lse] = tensors;
  const Shape shape = check_query(out_a);
  for (const TensorArg* arg : {&out_b, &out}) {
    check_tensor(*arg, 4, {MINF_FLOAT32, MINF_BFLOAT16, MINF_FLOAT16});
    check_same_dtype(*arg, out_a);
    check_shape(*arg, {out_a.size(0), out_a.size(1), out_a.size(2), out_a.size(3)}, "of out_a");
  }
  for (const TensorArg* arg : {&lse_a, &lse_b, &lse}) {
    check_tensor(*arg, 3, {MINF_FLOAT32});
    check_shape(*arg, {out_a.size(0), out_a.size(2), out_a.size(1)},
                "[batch, num_heads_q, seqlen_q]");
  }
  for (const TensorArg* arg : {&lse_a, &out_b, &lse_b, &out, &lse}) check_same_device(*arg, out_a);
  for (const TensorArg* arg : {&out_a, &lse_a, &out_b, &lse_b, &out, &lse}) check_data(*arg);
  check_in_place(out, {out_a, out_b});
  check_in_place(lse, {lse_a, lse_b});
  check_disjoint(out, {lse_a, lse_b, lse});
  check_disjoint(lse, {out_a, out_b});
  return shape;
}

}  // namespace
}  // namespace minference::api

using namespace minference;
using namespace minference::api;

minf_status minf_merge_attention(const minf_tensor* out_a, const minf_tensor* lse_a,
                                 const minf_tensor* out_b, const minf_tensor* lse_b,
                                 const minf_tensor* out, const minf_tensor* lse,
                                 const minf_exec* exec) {
  return guarded([&] {
    const MergeTensors tensors{{"out_a", out_a}, {"lse_a", lse_a}, {"out_b", out_b},
                               {"lse_b", lse_b}, {"out", out},     {"lse", lse}};
    const Shape shape = checked_merge(tensors);
    const Executor executor = checked_executor(exec, *out_a);
    const Backend& backend = backend_of(tensors.out_a);
    check_rows(backend, {tensors.out_a, tensors.out_b, tensors.out});
    check_resources(
        backend, executor,
        {tensors.out_a, tensors.lse_a, tensors.out_b, tensors.lse_b, tensors.out, tensors.lse});
    if (has_no_rows(shape)) return;
    backend.merge_attention({.shape = shape,
                             .out_a = const_tokens(tensors.out_a),
                             .out_b = const_tokens(tensors.out_b),
                             .out = tokens(tensors.out),
                             .lse_a = const_row_values(tensors.lse_a),
                             .lse_b = const_row_values(tensors.lse_b),
                             .lse = row_values(tensors.lse)},
                            executor);
  });
}
