// All stages in one call, each head with its own pattern: the index is built in the caller's
// workspace, then attention computes what it says. The stages run one after another and share their
// work memory.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <span>

#include "api/attention.h"
#include "api/backends.h"
#include "api/build_index.h"
#include "api/call.h"
#include "api/sparse_index.h"
#include "api/tensor.h"
#include "core/backend.h"
#include "core/workspace.h"

namespace minference::api {
namespace {

/// Work memory of the most demanding stage. Only the shape of `attention` is read.
std::size_t stage_bytes(const IndexCall& call, const IndexLayout& layout, AttentionArgs attention) {
  attention.patterns = layout.patterns;
  attention.index = layout.index();
  return std::max(index_work_bytes(call, layout),
                  attention_bytes(call.backend, attention, call.executor));
}

std::size_t prefill_bytes(const IndexCall& call, const AttentionArgs& attention) {
  if (has_no_rows(call.shape)) return 0;
  WorkspaceAllocator memory;
  const IndexLayout layout = lay_out_index(call, memory);
  memory.take<std::byte>(stage_bytes(call, layout, attention));
  return memory.bytes();
}

/// Counts the tiles of all heads, if the caller asks for them.
void count_tiles(const IndexCall& call, std::span<const HeadKeys> patterns, const IndexLists& index,
                 const TensorArg& tiles) {
  if (is_absent(tiles.tensor) || call.shape.batch == 0) return;
  call.backend.count_key_tiles({.shape = call.shape,
                                .patterns = patterns,
                                .index = index,
                                .tiles = head_lists<int64_t>(tiles)},
                               call.executor);
}

void prefill(const IndexCall& call, AttentionArgs attention, Workspace workspace,
             const TensorArg& tiles) {
  WorkspaceAllocator memory(workspace);
  const IndexLayout layout = lay_out_index(call, memory);
  const Workspace work = memory.take<std::byte>(stage_bytes(call, layout, attention));
  build_index(call, layout, work);
  attention.patterns = layout.patterns;
  attention.index = layout.index();
  count_tiles(call, attention.patterns, attention.index, tiles);
  attend(call.backend, attention, work, call.executor);
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
                                   const minf_attention_options* options, const minf_tensor* out,
                                   const minf_tensor* lse, const minf_tensor* tiles,
                                   void* workspace, size_t workspace_bytes, const minf_exec* exec) {
  return guarded([&] {
    const AttentionTensors tensors{{"q", q}, {"k", k}, {"v", v}, {"out", out}, {"lse", lse}};
    const TensorArg tiles_arg{"tiles", tiles};
    const Shape shape = checked_attention_tensors(tensors);
    check_prefill_tiles(tiles_arg, tensors, shape);
    const double scale = checked_scale(checked_options(options).softmax_scale, shape.head_dim);
    const IndexCall call =
        checked_index_call(tensors.q, tensors.k, shape, patterns, num_patterns, scale, exec);
    const AttentionArgs attention = attention_args(tensors, shape, scale);
    check_attention_rows(call.backend, tensors);
    const Workspace memory =
        checked_workspace(workspace, workspace_bytes, prefill_bytes(call, attention));
    check_resources(call.backend, call.executor,
                    {tensors.q, tensors.k, tensors.v, tensors.out, tensors.lse, tiles_arg}, memory);
    if (has_no_rows(shape)) {
      const HeadKeys no_keys;
      return count_tiles(call, {&no_keys, 1}, /*index=*/{}, tiles_arg);
    }
    prefill(call, attention, memory, tiles_arg);
  });
}

minf_status minf_prefill_attention_workspace_bytes(const minf_tensor* q, const minf_tensor* k,
                                                   const minf_pattern* patterns,
                                                   int64_t num_patterns, const minf_exec* exec,
                                                   size_t* bytes) {
  return guarded([&] {
    const TensorArg q_arg{"q", q}, k_arg{"k", k};
    const Shape shape = check_query_keys(q_arg, k_arg);
    AttentionArgs attention;
    attention.shape = shape;
    const IndexCall call = checked_index_call(q_arg, k_arg, shape, patterns, num_patterns,
                                              /*softmax_scale=*/1, exec);
    store_workspace_bytes(bytes, prefill_bytes(call, attention));
  });
}
