// Stage 3 behind its checks: what attention.cpp and prefill.cpp share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "api/call.h"
#include "api/tensor.h"
#include "core/backend.h"
#include "minference/minference.h"

namespace minference::api {

/// The tensors of a stage-3 call.
struct AttentionTensors {
  TensorArg q;
  TensorArg k;
  TensorArg v;
  TensorArg out;
  TensorArg lse;  // May be absent.
};

/// Checks v against q and k, whose shape it completes; reads no memory.
void check_values(const TensorArg& v, const TensorArg& q, const TensorArg& k, Shape& shape);

/// Checks all tensors against each other, and their memory; no entry is read.
Shape checked_attention_tensors(const AttentionTensors& tensors);

/// Checks what the backend demands of rows, see check_rows().
void check_attention_rows(const Backend& backend, const AttentionTensors& tensors);

/// Without patterns and index lists.
AttentionArgs attention_args(const AttentionTensors& tensors, const Shape& shape,
                             double softmax_scale);

}  // namespace minference::api
