// Stage 1 of vertical-slash on sm80: its two passes over K. All else is
// common/estimate_vertical_slash.h's.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/common/estimate_vertical_slash.h"

namespace minference::sm80 {

/// Defined in estimate_vertical_slash_kernels.h, and instantiated for each of cuda::kHeadDims.
template <typename Element, int kHeadDim>
cuda::ScoreKernels score_kernels();

/// The kernels of the least padded head_dim.
cuda::ScoreKernels score_kernels(const Shape& shape);

}  // namespace minference::sm80
