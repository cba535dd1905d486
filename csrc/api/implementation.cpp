// Which implementation of stage 3 would serve a call, and why those before it would not.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include "api/attention.h"
#include "api/backends.h"
#include "api/build_index.h"
#include "api/call.h"
#include "api/tensor.h"
#include "core/backend.h"
#include "core/check.h"

namespace minference::api {
namespace {

/// `given`, or a contiguous tensor for the same rows if it is absent. That one borrows q's memory:
/// nothing is written.
minf_tensor out_or_contiguous(const minf_tensor* given, const minf_tensor& q,
                              const minf_tensor& v) {
  if (!is_absent(given)) return *given;
  minf_tensor out = q;
  out.shape[3] = v.shape[3];
  int64_t stride = 1;
  for (int dim = 3; dim >= 0; --dim) {
    out.stride[dim] = stride;
    stride *= out.shape[dim] > 0 ? out.shape[dim] : 1;
  }
  return out;
}

}  // namespace
}  // namespace minference::api

using namespace minference;
using namespace minference::api;

minf_status minf_attention_implementation(const minf_tensor* q, const minf_tensor* k,
                                          const minf_tensor* v, const minf_pattern* patterns,
                                          int64_t num_patterns, const minf_tensor* out,
                                          const minf_exec* exec, int32_t implementation,
                                          minf_capability* capability) {
  return guarded([&] {
    const TensorArg q_arg{"q", q}, k_arg{"k", k}, v_arg{"v", v};
    Shape shape = check_query_keys(q_arg, k_arg);
    check_values(v_arg, q_arg, k_arg, shape);
    const minf_tensor known_out = out_or_contiguous(out, *q, *v);
    const AttentionTensors tensors{q_arg, k_arg, v_arg, {"out", &known_out}, {"lse", nullptr}};
    const IndexCall call = checked_index_call(q_arg, k_arg, shape, patterns, num_patterns,
                                              /*softmax_scale=*/1, exec);
    check_attention_rows(call.backend, tensors);
    WorkspaceAllocator counted;
    const IndexLayout layout = lay_out_index(call, counted);
    AttentionArgs args = attention_args(tensors, shape, /*softmax_scale=*/1);
    args.patterns = layout.patterns;
    args.index = layout.index();

    const auto list = call.backend.attention;
    MINF_CHECK_ARG(implementation >= 0 && implementation < static_cast<int64_t>(list.size()),
                   "implementation: expected an index in [0, ", list.size(), "), got ",
                   implementation);
    MINF_CHECK_ARG(capability != nullptr, "capability: expected a struct to fill, got null");
    bool taken = false;  // By an earlier one.
    for (int32_t i = 0; i <= implementation; ++i) {
      const AttentionImplementation& entry = list[static_cast<std::size_t>(i)];
      const char* const reason = why_not(call.backend, entry, args, call.executor);
      const bool serves = *reason == '\0';
      *capability = {entry.name, serves, serves && !taken, reason};
      taken = taken || serves;
    }
  });
}

minf_status minf_attention_implementation_count(int32_t device_type, int32_t device_index,
                                                int32_t* count) {
  return guarded([&] {
    MINF_CHECK_ARG(device_type == MINF_DEVICE_CPU || device_type == MINF_DEVICE_CUDA,
                   "device_type: expected MINF_DEVICE_CPU or MINF_DEVICE_CUDA, got ", device_type);
    MINF_CHECK_ARG(count != nullptr, "count: expected a pointer for the result, got null");
    const Backend& backend =
        select_backend(static_cast<minf_device_type>(device_type), device_index);
    *count = static_cast<int32_t>(backend.attention.size());
  });
}
