// Stage 1 behind its checks: what estimate.cpp and prefill.cpp share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "api/tensor.h"
#include "core/backend.h"
#include "minference/minference.h"

namespace minference::api {

/// Arguments of vertical-slash estimation, sizes clamped to the lengths; without targets.
EstimateVerticalSlashArgs estimate_args(const Shape& shape, const TensorArg& q, const TensorArg& k,
                                        const minf_vertical_slash_options& options,
                                        double softmax_scale);

/// Entries that are kept of a requested size: at least the forced ones, at most seqlen_k.
int32_t clamped_size(int64_t requested, int32_t forced, const Lengths& lengths);

}  // namespace minference::api
