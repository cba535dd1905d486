// The two 16-bit element types of the tensor cores, as bits, and their conversions. They are our
// own types, so that kernels compile on a host compiler without CUDA's headers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/arch/emulation.h"

namespace minference::arch {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

template <typename Element>
inline constexpr bool kIsElement =
    std::is_same_v<Element, BFloat16> || std::is_same_v<Element, Float16>;

/// Two floats rounded to nearest-even, `low` in the low half of the word.
/// PTX ISA: cvt.rn.bf16x2.f32, cvt.rn.f16x2.f32.
template <typename Element>
__device__ inline uint32_t pack_elements(float low, float high) {
  static_assert(kIsElement<Element>);
#if defined(MINF_SIMT)
  if constexpr (std::is_same_v<Element, BFloat16>) return simt::pack_bf16x2(low, high);
  return simt::pack_f16x2(low, high);
#else
  uint32_t pair;
  if constexpr (std::is_same_v<Element, BFloat16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  }
  return pair;
#endif
}

struct FloatPair {
  float low;
  float high;
};

/// Exact widening of both halves of a word. bf16 is the upper half of a float.
/// PTX ISA: cvt.f32.f16.
template <typename Element>
__device__ inline FloatPair unpack_elements(uint32_t pair) {
  static_assert(kIsElement<Element>);
#if defined(MINF_SIMT)
  if constexpr (std::is_same_v<Element, BFloat16>) {
    return {simt::float_from_bits(pair << 16), simt::float_from_bits(pair & 0xffff0000u)};
  }
  return {simt::float_from_f16(static_cast<uint16_t>(pair)),
          simt::float_from_f16(static_cast<uint16_t>(pair >> 16))};
#else
  if constexpr (std::is_same_v<Element, BFloat16>) {
    return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
  } else {
    FloatPair result;
    asm("{.reg .b16 lo, hi;\n mov.b32 {lo, hi}, %2;\n cvt.f32.f16 %0, lo;\n cvt.f32.f16 %1, hi;}"
        : "=f"(result.low), "=f"(result.high)
        : "r"(pair));
    return result;
  }
#endif
}

}  // namespace minference::arch
