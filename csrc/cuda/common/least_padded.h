// Kernels are compiled for a few head_dims and serve those below, padded.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "core/backend.h"
#include "core/check.h"

namespace minference::cuda {

/// Of instances with `dim` and `dim_v`, the least padded ones first, the first that serves the
/// call. api/ admits no dims beyond the last one's.
template <typename Instance, std::size_t kCount>
const Instance& least_padded(const Instance (&instances)[kCount], const Shape& shape) {
  for (const Instance& candidate : instances) {
    if (shape.head_dim <= candidate.dim && shape.head_dim_v <= candidate.dim_v) return candidate;
  }
  MINF_ASSERT(false && "api/ admits dims up to 256");
  return instances[0];
}

}  // namespace minference::cuda
