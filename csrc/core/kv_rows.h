// Where the rows of a tensor are: the one view of K and V on every backend.
//
// KvRows is what a call has, HeadRows what a thread walks: the rows of one head of one sequence.
// So far a tensor is all that KvRows is made of.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/arguments.h"
#include "core/host_device.h"
#include "core/sequence.h"

namespace minference {

/// The rows of one head of one sequence, a row for each token. T is the element's type, or
/// std::byte where code serves every dtype.
template <typename T>
struct HeadRows {
  const T* first = nullptr;
  int64_t stride = 0;  // Of T.

  MINF_HOST_DEVICE const T* row(int64_t token) const { return first + token * stride; }
};

/// `first_token`: the row of `tensor` at which the sequence begins. `size`: of an element, in T.
template <typename T>
MINF_HOST_DEVICE HeadRows<T> head_rows(const ConstTokens& tensor, int64_t sequence,
                                       int64_t first_token, int64_t head, int64_t size) {
  const int64_t offset = sequence * tensor.batch_stride + first_token * tensor.token_stride +
                         head * tensor.head_stride;
  return {.first = static_cast<const T*>(tensor.data) + offset * size,
          .stride = tensor.token_stride * size};
}

/// K or V of a call.
struct KvRows {
  ConstTokens tensor;

  template <typename T>
  MINF_HOST_DEVICE HeadRows<T> head(const Sequence& sequence, int32_t kv_head,
                                    int64_t size = 1) const {
    return head_rows<T>(tensor, sequence.index, sequence.first_key, kv_head, size);
  }
};

/// The queries of one head.
template <typename T>
MINF_HOST_DEVICE HeadRows<T> query_rows(const ConstTokens& q, const Sequence& sequence,
                                        int32_t head, int64_t size = 1) {
  return head_rows<T>(q, sequence.index, sequence.first_row, head, size);
}

}  // namespace minference
