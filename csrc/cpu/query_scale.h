// How a softmax scale reaches the kernels.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "cpu/isa/kernels.h"

namespace minference::cpu {

/// The magnitude is applied to scores in fp32, never to a 16-bit query, which would round; the sign
/// goes to the query, so that the largest score stays the largest.
struct QueryScale {
  QuerySign sign;
  float
      log2;  // |scale| * log2(e); 1 for a scale of 0, whose query is zero (0 * -inf would be NaN).

  explicit QueryScale(double scale)
      : sign(scale > 0   ? QuerySign::kPositive
             : scale < 0 ? QuerySign::kNegative
                         : QuerySign::kZero),
        log2(scale == 0 ? 1.0f : static_cast<float>(std::abs(scale) * 1.4426950408889634)) {}
};

}  // namespace minference::cpu
