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

/// The rows of one head of one sequence, a row for each token.
struct HeadRows {
  const std::byte* first = nullptr;
  int64_t stride = 0;  // Bytes.

  MINF_HOST_DEVICE const std::byte* row(int64_t token) const { return first + token * stride; }
};

/// `first_token`: the row of `tensor` at which the sequence begins.
MINF_HOST_DEVICE inline HeadRows head_rows(const ConstTokens& tensor, int64_t sequence,
                                           int64_t first_token, int64_t head,
                                           int64_t element_bytes) {
  const int64_t offset = sequence * tensor.batch_stride + first_token * tensor.token_stride +
                         head * tensor.head_stride;
  return {.first = static_cast<const std::byte*>(tensor.data) + offset * element_bytes,
          .stride = tensor.token_stride * element_bytes};
}

/// K or V of a call.
struct KvRows {
  ConstTokens tensor;

  MINF_HOST_DEVICE HeadRows head(const Sequence& sequence, int32_t kv_head,
                                 int64_t element_bytes) const {
    return head_rows(tensor, sequence.index, sequence.first_key, kv_head, element_bytes);
  }
};

/// The queries of one head.
MINF_HOST_DEVICE inline HeadRows query_rows(const ConstTokens& q, const Sequence& sequence,
                                            int32_t head, int64_t element_bytes) {
  return head_rows(q, sequence.index, sequence.first_row, head, element_bytes);
}

}  // namespace minference
