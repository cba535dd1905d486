// 16-bit floats and exp2, against arithmetic in double.
// SPDX-License-Identifier: Apache-2.0
#include <simt/instructions.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "test.h"

namespace {

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

/// Value of a 16-bit float with `mantissa_bits`, by definition; not for infinities and NaN.
double value_of(uint32_t bits, int mantissa_bits) {
  const int exponent_bits = 15 - mantissa_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const auto mantissa = static_cast<double>(bits & ((1u << mantissa_bits) - 1));
  const int exponent = static_cast<int>(bits >> mantissa_bits & ((1u << exponent_bits) - 1));
  const double unit = std::ldexp(1.0, -mantissa_bits);
  const double magnitude = exponent == 0 ? std::ldexp(mantissa * unit, 1 - bias)
                                         : std::ldexp(1 + mantissa * unit, exponent - bias);
  return (bits & 0x8000u) != 0 ? -magnitude : magnitude;
}

bool is_finite(uint32_t bits, int mantissa_bits) {
  const uint32_t exponent = (1u << (15 - mantissa_bits)) - 1;
  return (bits >> mantissa_bits & exponent) != exponent;
}

using Pack = uint32_t (*)(float, float);

// Each finite value is kept; midpoints of neighbours go to even; everything else to the nearest.
void test_rounding(Pack pack, int mantissa_bits) {
  int wrong = 0;
  for (uint32_t bits = 0; is_finite(bits, mantissa_bits); ++bits) {
    const auto value = static_cast<float>(value_of(bits, mantissa_bits));
    wrong += pack(value, -value) != (bits | (bits | 0x8000u) << 16);
    if (!is_finite(bits + 1, mantissa_bits)) break;
    const auto middle =
        static_cast<float>((value_of(bits, mantissa_bits) + value_of(bits + 1, mantissa_bits)) / 2);
    const uint32_t even = bits % 2 == 0 ? bits : bits + 1;
    wrong += (pack(middle, 0) & 0xffffu) != even;
    wrong += (pack(std::nextafter(middle, INFINITY), 0) & 0xffffu) != bits + 1;
    wrong += (pack(std::nextafter(middle, 0.0f), 0) & 0xffffu) != bits;
  }
  CHECK(wrong == 0, wrong, mantissa_bits);
}

void test_special_values(Pack pack, uint32_t infinity) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(pack(inf, -inf) == (infinity | (infinity | 0x8000u) << 16));
  CHECK(pack(nan, -nan) == 0x7fff7fffu);
  CHECK(pack(std::numeric_limits<float>::max(), 0) == infinity);
  CHECK(pack(std::numeric_limits<float>::denorm_min(), -0.0f) == 0x80000000u);
}

void test_widening() {
  int wrong = 0;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = simt::float_from_f16(static_cast<uint16_t>(bits));
    if (is_finite(bits, 10)) {
      wrong += static_cast<double>(value) != value_of(bits, 10) ||
               std::signbit(value) != ((bits & 0x8000u) != 0);
    } else {
      wrong += (bits & 0x3ffu) == 0 ? !std::isinf(value) : !std::isnan(value);
    }
  }
  CHECK(wrong == 0, wrong);
  CHECK(simt::float_from_bits(0x3f800000u) == 1.0f);
  CHECK(simt::pack_f16x2(65519.996f, 65520.0f) == 0x7c007bffu);
}

void test_exp2() {
  const float inf = std::numeric_limits<float>::infinity();
  CHECK(simt::exp2_flushed(3) == 8 && simt::exp2_flushed(-1) == 0.5f && simt::exp2_flushed(0) == 1);
  CHECK(simt::exp2_flushed(-126) == 0x1p-126f);
  CHECK(bits_of(simt::exp2_flushed(-126.5f)) == 0 && simt::exp2_flushed(-inf) == 0);
  CHECK(simt::exp2_flushed(inf) == inf && simt::exp2_flushed(1e-40f) == 1);
  CHECK(std::isnan(simt::exp2_flushed(std::numeric_limits<float>::quiet_NaN())));
}

}  // namespace

int main() {
  test_rounding(&simt::pack_f16x2, 10);
  test_rounding(&simt::pack_bf16x2, 7);
  test_special_values(&simt::pack_f16x2, 0x7c00u);
  test_special_values(&simt::pack_bf16x2, 0x7f80u);
  test_widening();
  test_exp2();
  return simt::test::finish();
}
