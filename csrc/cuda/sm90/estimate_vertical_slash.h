// Stage 1 of vertical-slash on sm90: its two passes over K. All else is
// common/estimate_vertical_slash.h's.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/common/estimate_vertical_slash.h"
#include "cuda/tma/tensor_maps.h"

namespace minference::sm90 {

inline tma::RowSizes key_sizes(const Shape& shape) {
  return {.dims = shape.head_dim,
          .rows = shape.lengths.seqlen_k,
          .heads = shape.num_heads_kv,
          .batch = shape.batch};
}

/// Defined in estimate_vertical_slash_kernels.h, and instantiated for each of cuda::kHeadDims.
template <typename Element, int kHeadDim>
cuda::ScoreKernels score_kernels();

/// The kernels of the least padded head_dim.
cuda::ScoreKernels score_kernels(const Shape& shape);

}  // namespace minference::sm90
