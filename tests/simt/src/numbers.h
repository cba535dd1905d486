// 16-bit floats.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>

namespace simt::engine {

inline float float_from_bfloat16(uint32_t bits) { return std::bit_cast<float>(bits << 16); }

inline float float_from_half(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = bits >> 10 & 0x1fu;
  const uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // Subnormal or zero.
  return sign != 0 ? -magnitude : magnitude;
}

uint16_t half_from_float(float value);      // To nearest, ties to even; NaN: 0x7fff.
uint16_t bfloat16_from_float(float value);  // The same.

}  // namespace simt::engine
