// How a softmax scale reaches a kernel: the magnitude multiplies scores in float32, never a 16-bit
// query, which would round; the sign goes to the query, so that the largest score stays the
// largest.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

namespace minference::device {

/// Bits of a pair of query elements: (pair & keep) ^ flip.
struct QueryBits {
  uint32_t keep = ~0u;
  uint32_t flip = 0;
};

struct QueryScale {
  float log2;  // |scale| log2(e). 1 where that is 0, with queries of 0: 0 * -inf would be NaN.
  QueryBits bits;

  explicit QueryScale(double scale)
      : log2(static_cast<float>(std::abs(scale) * 1.4426950408889634)),
        bits{.keep = ~0u, .flip = scale < 0 ? 0x80008000u : 0u} {
    if (log2 == 0) {
      log2 = 1;
      bits = {.keep = 0, .flip = 0};
    }
  }

  /// What bits do to a query, as a factor: 1, -1 or 0.
  float sign() const { return bits.keep == 0 ? 0.0f : bits.flip != 0 ? -1.0f : 1.0f; }
};

}  // namespace minference::device
