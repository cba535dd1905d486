// The values of 16-bit floats, and how a number is rounded to them, by search among all of them.
// Also float arithmetic in the host's rounding modes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cfenv>
#include <cmath>
#include <limits>
#include <string>

#include "types.h"

namespace ptxsim::test {

/// Wide enough for sums and products of the numbers that the tests use.
using Quad = __float128;

struct HalfFormat {
  int mantissa;
  int bias;
  u64 infinity() const { return ((1u << (15 - mantissa)) - 1) << mantissa; }
};
constexpr HalfFormat kF16 = {10, 15};
constexpr HalfFormat kBf16 = {7, 127};

inline double value_of(HalfFormat format, u64 bits) {
  const u64 magnitude = bits & 0x7fff;
  const int exponent = static_cast<int>(magnitude >> format.mantissa);
  const double fraction = static_cast<double>(magnitude & ((1u << format.mantissa) - 1));
  const double one = std::ldexp(1.0, format.mantissa);
  double value = exponent == 0
                     ? std::ldexp(fraction, 1 - format.bias - format.mantissa)
                     : std::ldexp(one + fraction, exponent - format.bias - format.mantissa);
  if (magnitude == format.infinity()) value = INFINITY;
  if (magnitude > format.infinity()) value = NAN;
  return (bits & 0x8000) != 0 ? -value : value;
}

/// "rn", "rz", "rm", "rp".
inline u64 rounded_to(HalfFormat format, Quad exact, const std::string& mode) {
  if (exact != exact) return 0x7fff;
  const bool is_negative = __builtin_signbit(exact) != 0;
  const u64 sign = is_negative ? 0x8000 : 0;
  const Quad magnitude = is_negative ? -exact : exact;
  if (magnitude > Quad{std::numeric_limits<double>::max()}) return sign | format.infinity();
  u64 below = 0;
  u64 above = format.infinity();
  while (above - below > 1) {
    const u64 middle = (below + above) / 2;
    (Quad{value_of(format, middle)} <= magnitude ? below : above) = middle;
  }
  const Quad low = value_of(format, below);
  if (low == magnitude) return sign | below;
  // Infinity takes the place of the number after the largest.
  const Quad high = above == format.infinity() ? 2 * low - Quad{value_of(format, below - 1)}
                                               : Quad{value_of(format, above)};
  const bool is_near =
      magnitude - low < high - magnitude || (magnitude - low == high - magnitude && below % 2 == 0);
  const bool takes_low = mode == "rn" ? is_near
                                      : mode == "rz" || (mode == "rm" && !is_negative) ||
                                            (mode == "rp" && is_negative);
  if (mode != "rn" && takes_low) return sign | below;
  if (magnitude >= high) return sign | (takes_low ? below : format.infinity());
  return sign | (takes_low ? below : above);
}

/// Sets the host's rounding mode while this object lives.
class HostRounding {
 public:
  explicit HostRounding(const std::string& mode) : before_(std::fegetround()) {
    std::fesetround(mode == "rz"   ? FE_TOWARDZERO
                    : mode == "rm" ? FE_DOWNWARD
                    : mode == "rp" ? FE_UPWARD
                                   : FE_TONEAREST);
  }
  ~HostRounding() { std::fesetround(before_); }
  HostRounding(const HostRounding&) = delete;
  HostRounding& operator=(const HostRounding&) = delete;

 private:
  int before_;
};

inline float float_of(u64 bits) { return std::bit_cast<float>(static_cast<u32>(bits)); }
inline double double_of(u64 bits) { return std::bit_cast<double>(bits); }
/// NaN results are 0x7fffffff.
inline u64 bits_of_float(float value) {
  return value != value ? 0x7fffffff : std::bit_cast<u32>(value);
}
inline float flushed(float value) {
  return std::fabs(value) < 0x1p-126f ? std::copysign(0.0f, value) : value;
}
inline float clamped(float value) { return value > 0.0f ? std::fmin(value, 1.0f) : 0.0f; }

}  // namespace ptxsim::test
