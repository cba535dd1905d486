// Two 16-bit elements in a word: which of them are NaN or infinite, and products that such elements
// must not spoil.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "cuda/arch/element.h"
#include "cuda/arch/matrix.h"

namespace minference::device {

/// A word of two elements.
template <typename Element>
struct ElementPair {
  static constexpr bool kIsBFloat16 = std::is_same_v<Element, arch::BFloat16>;
  static constexpr uint32_t kInfinity = kIsBFloat16 ? 0x7f80u : 0x7c00u;
  static constexpr uint32_t kOne = kIsBFloat16 ? 0x3f80u : 0x3c00u;
  static constexpr uint32_t kBoth = 0x00010001u;
  static constexpr uint32_t kSigns = 0x8000u * kBoth;

  /// The sign bit of each half whose exponent is all ones: adding one to the exponent carries into
  /// it.
  __device__ static uint32_t nonfinite(uint32_t pair) {
    constexpr uint32_t kExponentStep = kIsBFloat16 ? 0x0080u : 0x0400u;
    return ((pair & kInfinity * kBoth) + kExponentStep * kBoth) & kSigns;
  }

  /// The word with 0 in place of each element that is not finite.
  __device__ static uint32_t finite(uint32_t pair) {
    return pair & ~((nonfinite(pair) >> 15) * 0xffffu);
  }

  /// 1 for a NaN or an infinity of this sign, else 0.
  __device__ static uint32_t ones(uint32_t pair, bool negative) {
    uint32_t result = 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t bits = pair >> (16 * half) & 0xffffu;
      const uint32_t magnitude = bits & 0x7fffu;
      const bool same_infinity = magnitude == kInfinity && (bits >> 15 != 0) == negative;
      if (magnitude > kInfinity || same_infinity) result |= kOne << (16 * half);
    }
    return result;
  }
};

/// Eight dims of O += P V over 16 keys, in which no NaN or infinity of V reaches a row that does
/// not attend its key.
template <typename Element>
__device__ inline void add_nonfinite(float (&out)[4], const uint32_t (&p)[4],
                                     const uint32_t (&b)[2]) {
  using Pair = ElementPair<Element>;
  const uint32_t finite[2] = {Pair::finite(b[0]), Pair::finite(b[1])};
  const uint32_t plus[2] = {Pair::ones(b[0], false), Pair::ones(b[1], false)};
  const uint32_t minus[2] = {Pair::ones(b[0], true), Pair::ones(b[1], true)};
  float by_plus[4] = {}, by_minus[4] = {};
  arch::mma_m16n8k16<Element>(out, p, finite);
  arch::mma_m16n8k16<Element>(by_plus, p, plus);
  arch::mma_m16n8k16<Element>(by_minus, p, minus);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (by_plus[i] > 0) out[i] += INFINITY;
    if (by_minus[i] > 0) out[i] -= INFINITY;
  }
}

}  // namespace minference::device
