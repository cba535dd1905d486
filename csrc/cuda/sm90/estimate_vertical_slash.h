// Stage 1 of vertical-slash on sm90: its two passes over K. All else is sm80's.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/sm80/estimate_vertical_slash.h"
#include "cuda/tma/tensor_maps.h"

namespace minference::sm90 {

inline tma::RowSizes key_sizes(const Shape& shape) {
  return {.dims = shape.head_dim,
          .rows = shape.lengths.seqlen_k,
          .heads = shape.num_heads_kv,
          .batch = shape.batch};
}

sm80::ScoreKernels bf16_score_kernels(int32_t head_dim);  // Both defined in instances/.
sm80::ScoreKernels fp16_score_kernels(int32_t head_dim);

sm80::ScoreKernels score_kernels(const Shape& shape);

}  // namespace minference::sm90
