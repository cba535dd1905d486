// See attention_maps.h.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/tma/attention_maps.h"

#include <algorithm>
#include <cstdint>
#include <initializer_list>

namespace minference::tma {
namespace {

/// Gathered rows as a tensor, one of its heads for each head of `q`. If no columns were gathered,
/// returns `other`: a tensor map must point at valid memory.
MappedTensor gathered_tensor(const MappedTensor& q, const cuda::GatheredRows& rows,
                             const MappedTensor& other) {
  if (rows.num_columns == 0) return other;
  const int64_t head_stride = int64_t{rows.num_columns} * rows.dims;
  return {.tensor = {.data = rows.data,
                     .batch_stride = head_stride * q.sizes.heads,
                     .token_stride = rows.dims,
                     .head_stride = head_stride},
          .sizes = {rows.dims, rows.num_columns, q.sizes.heads, q.sizes.batch}};
}

}  // namespace

AttentionTensors::AttentionTensors(const AttentionArgs& args) {
  const Shape& shape = args.shape;
  const auto& [seqlen_q, seqlen_k] = shape.lengths;
  q = {args.q, {shape.head_dim, seqlen_q, shape.num_heads_q, shape.batch}};
  k = {args.k.tensor, {shape.head_dim, seqlen_k, shape.num_heads_kv, shape.batch}};
  v = {args.v.tensor, {shape.head_dim_v, seqlen_k, shape.num_heads_kv, shape.batch}};
  out = {as_const(args.out), {shape.head_dim_v, seqlen_q, shape.num_heads_q, shape.batch}};
}

bool AttentionTensors::have_maps() const {
  return std::ranges::all_of(
      std::initializer_list<MappedTensor>{q, k, v, out},
      [](const MappedTensor& mapped) { return has_tensor_map(mapped.tensor, mapped.sizes); });
}

AttentionMaps AttentionTensors::maps(const cuda::GatheredRows& keys,
                                     const cuda::GatheredRows& values,
                                     const PanelLayout& panel) const {
  const auto map = [&](const MappedTensor& mapped) {
    return tensor_map(mapped.tensor, mapped.sizes, panel);
  };
  return {.q = map(q),
          .k = map(k),
          .v = map(v),
          .out = map(out),
          .column_k = map(gathered_tensor(q, keys, k)),
          .column_v = map(gathered_tensor(q, values, v))};
}

}  // namespace minference::tma
