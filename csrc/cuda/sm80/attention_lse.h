// Stage 3 on sm80: the log-sum-exp of a row, between kernels in log2 units, for callers natural.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "cuda/arch/emulation.h"

namespace minference::sm80 {

/// Of exponentials that sum to `sum` * 2^max. -inf where no key was attended: the sum is 0.
__device__ inline float lse2_of(float max, float sum) {
  return sum == 0 ? -INFINITY : max + log2f(sum);
}

__device__ inline float lse_of(float lse2) {
  constexpr float kLn2 = 0.6931471805599453f;
  return lse2 * kLn2;
}

}  // namespace minference::sm80
