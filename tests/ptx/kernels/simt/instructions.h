// The host-side conversions of tests/simt that its tests use: 16-bit floats and pairs of them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "simt/simt.h"

namespace simt {

inline uint32_t pack_bf16x2(float low, float high) {
  const auto rounded = [](float value) -> uint32_t {
    if (std::isnan(value)) return 0x7fff;
    const auto bits = std::bit_cast<uint32_t>(value);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  };
  return rounded(low) | rounded(high) << 16;
}
inline uint32_t pack_f16x2(float low, float high) {
  const auto rounded = [](float value) -> uint32_t {
    return std::bit_cast<uint16_t>(static_cast<_Float16>(value));
  };
  return rounded(low) | rounded(high) << 16;
}
inline float float_from_f16(uint16_t bits) {
  return static_cast<float>(std::bit_cast<_Float16>(bits));
}

}  // namespace simt
