// One instruction of csrc/cuda/arch or of CUDA C++ as a case: inputs, a small kernel, and the
// expected output, computed on the host from the instruction's definition. The same sources are
// built for a GPU and for emulated threads; instructions.cpp compares hardware, emulation and
// definition.
//
// To add cases, write a function that returns a list of them, and name it in all_cases().
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <vector>

namespace minference::gpu_test {

/// What a 32-bit word of output holds. The 16-bit formats lie in the low half.
enum class Format { kBits, kFloat32, kBFloat16, kFloat16 };

/// An expected word. All float NaNs are equal, and `bound` is the absolute error that the
/// instruction's definition allows; bits and infinities are exact.
struct Expected {
  uint32_t word = 0;
  Format format = Format::kBits;
  double bound = 0;
};

struct Case {
  const char* name;
  int min_arch;         // 80: the GPU must be sm_80 or later,
  int64_t input_words;  // 32-bit words.
  int64_t output_words;
  void (*fill)(std::span<uint32_t> input);
  /// Enqueues the kernel; its pointers are device memory, 256-byte aligned. It writes every word of
  /// output.
  void (*launch)(const uint32_t* input, uint32_t* output, cudaStream_t stream);
  void (*expect)(std::span<const uint32_t> input, std::span<Expected> output);
  int max_arch = std::numeric_limits<int>::max();  // and this or earlier: 90 for code of sm_90a.
};

using CaseList = std::vector<Case>;

CaseList copy_cases();
CaseList matrix_cases();
CaseList matrix_sm90_cases();
CaseList number_cases();
CaseList thread_cases();

// ---- Inputs ---------------------------------------------------------------------------------

/// The same on every machine: the standard fixes this engine's output, but not that of
/// distributions.
class Random {
 public:
  explicit Random(uint32_t seed = 20) : engine_(seed) {}
  uint32_t bits() { return static_cast<uint32_t>(engine_()); }
  uint32_t below(uint32_t limit) { return bits() % limit; }
  /// In [-1, 1), a multiple of 2^-15: exact in float.
  float uniform() { return static_cast<float>(static_cast<int32_t>(bits() >> 16) - 32768) / 32768; }

 private:
  std::mt19937 engine_;
};

inline void fill_random(std::span<uint32_t> input) {
  Random random;
  for (uint32_t& word : input) word = random.bits();
}

/// Floats at the edges of rounding and range: signed zeros, subnormals, the limits of bf16, fp16
/// and float, rounding ties, infinities, NaNs with and without payload.
inline constexpr uint32_t kSpecialFloats[] = {
    0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007fffff, 0x00800000, 0x80800000, 0x3f800000,
    0xbf800000, 0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff, 0x3f801000, 0x3f803000, 0x3f801001,
    0x3f800fff, 0x7f7f7fff, 0x7f7f8000, 0x7f7fffff, 0xff7fffff, 0x477fe000, 0x477fefff, 0x477ff000,
    0xc77ff000, 0x477fffff, 0x38800000, 0x387fc000, 0x387fe000, 0x33800000, 0x33000000, 0x33000001,
    0x32ffffff, 0xb3000001, 0x33c00000, 0x00008000, 0x00018000, 0x00007fff, 0x7f800000, 0xff800000,
    0x7fc00000, 0xffc00000, 0x7f800001, 0xffbfffff};

// ---- 16-bit formats, from their definition -----------------------------------------------------

/// The value of the bits of a binary format with a sign, `exponent_bits` and `fraction_bits`. IEEE
/// 754.
inline double decode_float(uint32_t bits, int exponent_bits, int fraction_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = static_cast<int>(bits >> fraction_bits) & ((1 << exponent_bits) - 1);
  const auto fraction = static_cast<double>(bits & ((1U << fraction_bits) - 1));
  const bool negative = (bits >> (exponent_bits + fraction_bits)) & 1;
  double value = 0;
  if (exponent == (1 << exponent_bits) - 1) {
    value = fraction == 0 ? std::numeric_limits<double>::infinity()
                          : std::numeric_limits<double>::quiet_NaN();
  } else if (exponent == 0) {
    value = std::ldexp(fraction, 1 - bias - fraction_bits);
  } else {
    value = std::ldexp(fraction + std::ldexp(1.0, fraction_bits), exponent - bias - fraction_bits);
  }
  return negative ? -value : value;
}

/// Rounds to the nearest value of the format, ties to even; beyond the largest, to infinity. NaN
/// gives one NaN.
inline uint32_t encode_float(double value, int exponent_bits, int fraction_bits) {
  const uint32_t sign = std::signbit(value) ? 1U << (exponent_bits + fraction_bits) : 0;
  const uint32_t infinity = ((1U << exponent_bits) - 1) << fraction_bits;
  if (std::isnan(value)) return infinity | 1U << (fraction_bits - 1);
  if (std::isinf(value)) return sign | infinity;
  if (value == 0) return sign;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  int exponent = 0;
  std::frexp(value, &exponent);  // |value| = m 2^exponent, m in [1/2, 1).
  const int unit = std::max(exponent - 1, 1 - bias) - fraction_bits;
  // In units of the last place, the sum gives the fraction and, where it carries, the exponent.
  const auto units = static_cast<uint64_t>(std::nearbyint(std::ldexp(std::fabs(value), -unit)));
  const uint64_t bits =
      units + (static_cast<uint64_t>(unit - (1 - bias - fraction_bits)) << fraction_bits);
  return sign | static_cast<uint32_t>(std::min<uint64_t>(bits, infinity));
}

inline double decode(uint32_t word, Format format) {
  switch (format) {
    case Format::kFloat32:
      return std::bit_cast<float>(word);
    case Format::kBFloat16:
      return decode_float(word & 0xffff, /*exponent_bits=*/8, /*fraction_bits=*/7);
    case Format::kFloat16:
      return decode_float(word & 0xffff, /*exponent_bits=*/5, /*fraction_bits=*/10);
    case Format::kBits:
      break;
  }
  return word;
}

inline uint32_t encode(double value, Format format) {
  return format == Format::kBFloat16
             ? encode_float(value, /*exponent_bits=*/8, /*fraction_bits=*/7)
             : encode_float(value, /*exponent_bits=*/5, /*fraction_bits=*/10);
}

}  // namespace minference::gpu_test
