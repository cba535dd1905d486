// Checks of tensors that a caller passed, and their form inside the library.
//
// Every refusal names the argument, what was expected and what came. Order: check_tensor (what the
// view says about itself), then its relation to others, then check_data (memory), then overlap.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <type_traits>

#include "core/backend.h"
#include "minference/minference.h"

namespace minference::api {

/// Largest size of any dimension: positions, and ends of runs up to 127 keys past them, fit int32.
inline constexpr int64_t kMaxSize = int64_t{1} << 30;

/// Largest batch * num_heads_q: times the 2^24 row blocks of the longest sequence, and times any
/// count of 64-key tiles, work items stay far below 2^63.
inline constexpr int64_t kMaxHeads = int64_t{1} << 20;

/// A tensor argument and its name in messages.
struct TensorArg {
  const char* name;
  const minf_tensor* tensor;

  int64_t size(int dim) const { return tensor->shape[dim]; }
  /// Stride in elements; 0 where it never counts.
  int64_t stride(int dim) const { return size(dim) > 1 ? tensor->stride[dim] : 0; }
  int64_t element_bytes() const;
  bool empty() const;
};

/// An optional tensor is absent when its pointer is null or its ndim is 0.
inline bool is_absent(const minf_tensor* tensor) { return tensor == nullptr || tensor->ndim == 0; }

/// Checks rank, dtype (one of `dtypes`), device, sizes and strides; reads no memory.
void check_tensor(const TensorArg& arg, int ndim, std::initializer_list<minf_dtype> dtypes);

/// Checks that sizes equal `expected`, where -1 allows any; `meaning` names them in the message.
void check_shape(const TensorArg& arg, std::initializer_list<int64_t> expected,
                 const char* meaning);
void check_same_dtype(const TensorArg& arg, const TensorArg& reference);
void check_same_device(const TensorArg& arg, const TensorArg& reference);

/// Checks that there is memory, aligned for the dtype.
void check_data(const TensorArg& arg);

/// Checks that no two elements of an output share memory.
void check_distinct_elements(const TensorArg& out);

/// Checks that an output shares no byte with `other`. Views interleaved in one buffer, such as
/// heads of a fused projection, pass if their strides prove them disjoint.
void check_disjoint(const TensorArg& out, const TensorArg& other);
void check_disjoint(const TensorArg& out, std::initializer_list<TensorArg> others);

/// Whether both are the same view: the same elements at the same places.
bool is_same_view(const TensorArg& a, const TensorArg& b);

/// Whether a call has nothing to compute: not an error.
inline bool has_no_rows(const Shape& shape) {
  return shape.batch == 0 || shape.lengths.seqlen_q == 0;
}

/// (batch, query head) pairs.
inline std::size_t num_heads_of(const Shape& shape) {
  return static_cast<std::size_t>(shape.batch) * static_cast<std::size_t>(shape.num_heads_q);
}

/// Checks q and k against each other, and returns what they say about the call.
Shape check_query_keys(const TensorArg& q, const TensorArg& k);

/// The size of dimension 3, checked; `dim_name` is what messages call it.
int32_t checked_head_dim(const TensorArg& arg, const char* dim_name);

/// Shape of q (or of an out) alone: rank, dtype, head_dim and number of heads are checked, and
/// num_heads_kv and seqlen_k are set as if k had the same shape.
Shape check_query(const TensorArg& q);

inline std::byte* address(const TensorArg& arg) {
  return static_cast<std::byte*>(arg.tensor->data);
}

ConstTokens const_tokens(const TensorArg& arg);
Tokens tokens(const TensorArg& arg);
ConstRowValues const_row_values(const TensorArg& arg);
/// Null row values for an absent tensor.
RowValues row_values(const TensorArg& arg);

/// Where the entries of (batch, head) begin in a [batch, num_heads_q, ...] tensor; null if it is
/// empty. An Element may be several entries of the tensor, as a Run is two.
template <typename Element>
Element* head_entries(const TensorArg& arg, int64_t batch, int64_t head) {
  if (arg.empty()) return nullptr;
  const int64_t offset = batch * arg.stride(0) + head * arg.stride(1);
  return reinterpret_cast<Element*>(address(arg) + offset * arg.element_bytes());
}

/// The lists of a [batch, num_heads_q, ...] tensor, which may be absent. Dimension 2, or for
/// block_index 3, counts a list's entries; without one each list is a single entry.
template <typename T>
HeadLists<T> head_lists(const TensorArg& arg) {
  if (is_absent(arg.tensor)) return {};
  const int list_dim =
      arg.tensor->ndim == 4 && !std::is_same_v<std::remove_const_t<T>, Run> ? 3 : 2;
  return {.data = head_entries<T>(arg, 0, 0),
          .batch_stride_bytes = arg.stride(0) * arg.element_bytes(),
          .head_stride_bytes = arg.stride(1) * arg.element_bytes(),
          .size = arg.tensor->ndim == 2 ? 1 : static_cast<int32_t>(arg.size(list_dim))};
}

}  // namespace minference::api
