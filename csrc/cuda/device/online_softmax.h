// Online softmax with a rescaling threshold, the log-sum-exp at its end, and how the scale reaches
// a kernel.
//
// Sums are relative to 2^max, which need not be the row's maximum. It is raised only when a score
// exceeds it by more than kRescaleSlack: rescaling O costs as much as a quarter of a step's
// products, and almost no tile after the first needs it. (sm80's attention looks at sums of P
// instead, and raises a maximum up to 3 sooner.) A row's result depends on its own scores alone.
//
// Source: online softmax as in FlashAttention-2 (arXiv:2307.08691); rescaling by threshold as in
// FlashAttention-4.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "cuda/arch/element.h"

namespace minference::device {

/// In log2 units: P up to 2^8 leaves fp16 (2^16) room, and sums of 2^24 such P fit fp32.
inline constexpr float kRescaleSlack = 8.0f;

/// How far below the largest score a maximum is set when it is raised. P of that score is then 2^7,
/// and at most 2^15 before the next raise; small P keep that many more binades above fp16's least
/// number.
template <typename Element>
inline constexpr float kHeadroom = std::is_same_v<Element, arch::Float16> ? 7.0f : 0.0f;

/// Row maximum before the first score. Finite, so that 2^(-inf - max) is 0, not NaN.
inline constexpr float kNoScore = -3.402823466e+38f;

/// log2 of exponentials that sum to `sum` * 2^max. -inf where no key was attended: the sum is 0.
__device__ inline float lse2_of(float max, float sum) {
  return sum == 0 ? -INFINITY : max + log2f(sum);
}

/// The natural logarithm that callers expect.
__device__ inline float lse_of(float lse2) {
  constexpr float kLn2 = 0.6931471805599453f;
  return lse2 * kLn2;
}

// ---- Scale --------------------------------------------------------------------------------------
//
// The magnitude of the softmax scale multiplies scores in float32, not the 16-bit queries, which
// would round. The sign goes to the queries, so that the largest score stays the largest.

/// Bits of a pair of query elements: (pair & keep) ^ flip.
struct QueryBits {
  uint32_t keep = ~0u;
  uint32_t flip = 0;
};

struct QueryScale {
  float log2;  // |scale| log2(e), or 1 if that is 0: queries are 0 then, and 0 * -inf would be NaN.
  QueryBits bits;

  explicit QueryScale(double scale)
      : log2(static_cast<float>(std::abs(scale) * 1.4426950408889634)),
        bits{.keep = ~0u, .flip = scale < 0 ? 0x80008000u : 0u} {
    if (log2 == 0) {
      log2 = 1;
      bits = {.keep = 0, .flip = 0};
    }
  }

  /// The factor by which `bits` multiplies a query: 1, -1 or 0.
  float sign() const { return bits.keep == 0 ? 0.0f : bits.flip != 0 ? -1.0f : 1.0f; }
};

}  // namespace minference::device
