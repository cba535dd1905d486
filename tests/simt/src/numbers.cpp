// 16-bit floats, and 2^x without subnormals.
// SPDX-License-Identifier: Apache-2.0
#include "numbers.h"

#include <simt/instructions.h>

#include <cmath>
#include <cstring>

namespace simt {
namespace {

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

constexpr uint16_t kNaN16 = 0x7fff;

}  // namespace

float float_from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

namespace engine {

uint16_t half_from_float(float value) {
  if (value != value) return kNaN16;
  const uint32_t bits = bits_of(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const float magnitude = float_from_bits(bits & 0x7fffffffu);
  if (magnitude >= 65520.0f) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x1p-14f) {
    // Adding 1/2 makes the mantissa's last place worth 2^-24, so the addition rounds.
    const float shifted = magnitude + 0.5f;
    return static_cast<uint16_t>(sign | (bits_of(shifted) - bits_of(0.5f)));
  }
  const uint32_t word = bits_of(magnitude);
  const uint32_t rounded = word + 0xfffu + (word >> 13 & 1u);
  return static_cast<uint16_t>(sign | ((rounded >> 13) - (112u << 10)));
}

uint16_t bfloat16_from_float(float value) {
  if (value != value) return kNaN16;
  const uint32_t bits = bits_of(value);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace engine

uint32_t pack_bf16x2(float low, float high) {
  return engine::bfloat16_from_float(low) | static_cast<uint32_t>(engine::bfloat16_from_float(high))
                                                << 16;
}

uint32_t pack_f16x2(float low, float high) {
  return engine::half_from_float(low) | static_cast<uint32_t>(engine::half_from_float(high)) << 16;
}

float float_from_f16(uint16_t bits) { return engine::float_from_half(bits); }

float exp2_flushed(float x) {
  constexpr float kSmallestNormal = 0x1p-126f;
  if (std::fabs(x) < kSmallestNormal) return 1.0f;
  const float result = std::exp2(x);
  return result < kSmallestNormal ? 0.0f : result;
}

}  // namespace simt
