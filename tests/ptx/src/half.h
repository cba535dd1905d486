// Floating-point formats as bits: f16, bf16, tf32 and f32, and how a double is rounded to them.
//
// Sums and products of 16-bit floats are rounded once: they are computed in double, rounded to odd
// where not exact, and then rounded to the format. A double has more than twice a float's bits plus
// two, so the result is the exact value rounded once.
// Source: Boldo and Melquiond, Emulation of FMA and correctly rounded sums (rounding to odd).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>

#include "types.h"

namespace ptxsim {

enum class Rounding : u8 {
  kNearestEven,
  kZero,
  kDown,
  kUp,
  kNearestAway,
};

/// A binary format with a sign, an implicit leading one and subnormals.
struct Format {
  int exponent_bits;
  int mantissa_bits;
  constexpr int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  constexpr u32 infinity() const { return ((1u << exponent_bits) - 1) << mantissa_bits; }
  constexpr u32 sign() const { return 1u << (exponent_bits + mantissa_bits); }
  /// The NaN that operations return: all bits but the sign.
  constexpr u32 canonical_nan() const { return sign() - 1; }
};
constexpr Format kFormatF16 = {5, 10};
constexpr Format kFormatBf16 = {8, 7};
constexpr Format kFormatTf32 = {8, 10};  // In the upper 19 of 32 bits.
constexpr Format kFormatF32 = {8, 23};

/// The bits of `x` in a format of at most 32 bits, rounded once. NaN becomes the canonical NaN.
template <Format kFormat>
u32 round_to(double x, Rounding rounding) {
  constexpr int kDoubleMantissa = 52;
  const u64 bits = std::bit_cast<u64>(x);
  const bool is_negative = (bits >> 63) != 0;
  const u32 sign = is_negative ? kFormat.sign() : 0;
  const u64 magnitude = bits & ~(u64{1} << 63);
  constexpr u64 kInfinity = u64{0x7ff} << kDoubleMantissa;
  if (magnitude > kInfinity) return kFormat.canonical_nan();
  if (magnitude == kInfinity) return sign | kFormat.infinity();
  if (magnitude == 0) return sign;

  // x = mantissa * 2^(exponent - 52). Subnormal doubles are far below all these formats.
  const int exponent = std::max(static_cast<int>(magnitude >> kDoubleMantissa), 1) - 1023;
  const u64 fraction = magnitude & ((u64{1} << kDoubleMantissa) - 1);
  const bool is_normal = (magnitude >> kDoubleMantissa) != 0;
  const u64 mantissa = fraction | (is_normal ? u64{1} << kDoubleMantissa : 0);
  constexpr int kLeast = 1 - kFormat.bias();  // Exponent of the smallest normal number.
  const int dropped =
      std::min(std::max(exponent, kLeast) - exponent + kDoubleMantissa - kFormat.mantissa_bits, 63);
  const u64 kept = mantissa >> dropped;
  const u64 rest = mantissa & ((u64{1} << dropped) - 1);
  const u64 half = u64{1} << (dropped - 1);
  bool rounds_away = false;
  switch (rounding) {
    case Rounding::kNearestEven:
      rounds_away = rest > half || (rest == half && (kept & 1) != 0);
      break;
    case Rounding::kNearestAway:
      rounds_away = rest >= half;
      break;
    case Rounding::kZero:
      break;
    case Rounding::kDown:
      rounds_away = rest != 0 && is_negative;
      break;
    case Rounding::kUp:
      rounds_away = rest != 0 && !is_negative;
      break;
  }
  const bool is_subnormal = exponent < kLeast;
  const u64 above = is_subnormal ? 0 : static_cast<u64>(exponent - kLeast) << kFormat.mantissa_bits;
  const u64 encoded = above + kept + (rounds_away ? 1 : 0);
  if (encoded < kFormat.infinity()) return sign | static_cast<u32>(encoded);
  const bool overflows = rounding == Rounding::kNearestEven || rounding == Rounding::kNearestAway ||
                         rounds_away || (rounding == Rounding::kDown && is_negative) ||
                         (rounding == Rounding::kUp && !is_negative);
  return sign | (overflows ? kFormat.infinity() : kFormat.infinity() - 1);
}

// ---- Rounding to odd ---------------------------------------------------------------------------

/// `rounded` is an exact value rounded to nearest, and `error` has the sign of what was lost.
/// Returns the value rounded to odd.
inline double to_odd(double rounded, double error) {
  if (error == 0.0 || !std::isfinite(rounded) || (std::bit_cast<u64>(rounded) & 1) != 0) {
    return rounded;
  }
  if (rounded == 0.0) return error;
  const bool grows = (error > 0.0) == (rounded > 0.0);
  return std::bit_cast<double>(std::bit_cast<u64>(rounded) + (grows ? u64{1} : ~u64{0}));
}
inline double sum_to_odd(double a, double b) {
  const double sum = a + b;
  if (!std::isfinite(sum)) return sum;
  const double b_part = sum - a;
  const double error = (a - (sum - b_part)) + (b - b_part);
  return to_odd(sum, error);
}
/// a * b + c, where a * b is exact in double: factors are floats or narrower.
inline double fma_to_odd(double a, double b, double c) { return sum_to_odd(a * b, c); }

// ---- f32 ---------------------------------------------------------------------------------------

/// .ftz: subnormals become zeros of the same sign.
inline float flush(float value) {
  const u32 bits = std::bit_cast<u32>(value);
  return std::bit_cast<float>((bits & 0x7f800000u) == 0 ? bits & 0x80000000u : bits);
}

/// Replaces a NaN with the canonical one.
inline float canonical(float value) {
  return value == value ? value : std::bit_cast<float>(kFormatF32.canonical_nan());
}

// ---- f16, bf16 ---------------------------------------------------------------------------------

inline float f16_to_float(u16 bits) {
  const u32 sign = (u32{bits} & 0x8000u) << 16;
  const u32 magnitude = bits & 0x7fffu;
  const float subnormal = static_cast<float>(static_cast<s32>(magnitude)) * 0x1p-24f;
  const u32 normal = (magnitude << 13) + (112u << 23);
  u32 result = magnitude < 0x400u ? std::bit_cast<u32>(subnormal) : normal;
  result = magnitude >= 0x7c00u ? 0x7f800000u : result;
  return std::bit_cast<float>(magnitude > 0x7c00u ? 0x7fffffffu : result | sign);
}

/// Rounded to nearest even.
inline u16 float_to_f16(float value) {
  const u32 bits = std::bit_cast<u32>(value);
  const u32 sign = (bits >> 16) & 0x8000u;
  const u32 magnitude = bits & 0x7fffffffu;
  // The lowest bit of a float near 0.5 is worth that of a subnormal f16, so the addition rounds.
  const u32 subnormal = std::bit_cast<u32>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  const u32 normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13;
  u32 result = magnitude < 0x38800000u ? subnormal : normal;
  result = magnitude >= 0x47800000u ? 0x7c00u : result;
  return static_cast<u16>(magnitude > 0x7f800000u ? 0x7fffu : result | sign);
}

inline float bf16_to_float(u16 bits) {
  const u32 wide = u32{bits} << 16;
  return std::bit_cast<float>((wide & 0x7fffffffu) > 0x7f800000u ? 0x7fffffffu : wide);
}

/// Rounded to nearest even.
inline u16 float_to_bf16(float value) {
  const u32 bits = std::bit_cast<u32>(value);
  const u32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<u16>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : rounded);
}

// ---- Values of registers -----------------------------------------------------------------------

/// 16-bit floats in a register, one or a pair. They convert to float; results are rounded by named
/// functions.
struct F16 {
  static constexpr Format kFormat = kFormatF16;
  u16 bits;
  float value() const { return f16_to_float(bits); }
  static F16 nearest(float x) { return {float_to_f16(x)}; }
};
struct Bf16 {
  static constexpr Format kFormat = kFormatBf16;
  u16 bits;
  float value() const { return bf16_to_float(bits); }
  static Bf16 nearest(float x) { return {float_to_bf16(x)}; }
};
template <class T>
struct Pair {
  T low, high;
};
using F16x2 = Pair<F16>;
using Bf16x2 = Pair<Bf16>;

}  // namespace ptxsim
