// Four-lane vectors in the compilers' own vector type: any processor (NEON on aarch64, SSE2 on
// x86-64). Same names as simd_avx512.h; the contract is in kernels_inl.h.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>

namespace minference::cpu {
namespace {

struct Simd {
  using F = float __attribute__((vector_size(16)));
  using Mask = int32_t __attribute__((vector_size(16)));  // -1 or 0 per lane.
  using Words = uint32_t __attribute__((vector_size(16)));
  static constexpr int kLanes = 4;
  static constexpr int kRegs = 4;
  static constexpr int kKeys = 4;  // 16 accumulators + 4 operands + 1 broadcast of NEON's 32.
  static constexpr bool kHasPairs = false;

  static F zero() { return F{}; }
  static F set1(float x) { return F{x, x, x, x}; }
  static F load(const float* p) {
    F x;
    std::memcpy(&x, p, sizeof x);
    return x;
  }
  static void store(float* p, F x) { std::memcpy(p, &x, sizeof x); }
  static F add(F a, F b) { return a + b; }
  static F sub(F a, F b) { return a - b; }
  static F mul(F a, F b) { return a * b; }
  static F div(F a, F b) { return a / b; }
  static F fma(F a, F b, F c) { return a * b + c; }  // Contracted where the processor has FMA.
  static F fms(F a, F b, F c) { return a * b - c; }
  static F max(F a, F b) { return a > b ? a : b; }
  static float sum(F x) { return (x[0] + x[2]) + (x[1] + x[3]); }
  static F broadcast_word(const char* p) {
    float word;
    std::memcpy(&word, p, sizeof word);
    return set1(word);
  }

  // head_dim is a multiple of 8: n is always 4, and whole vectors are read and written.
  static F load_words(const float* p, int) { return load(p); }
  static F load_bfloat16(const uint16_t* p, int) {
    return from_bits(Words{p[0], p[1], p[2], p[3]} << 16);
  }
  static F load_float16(const uint16_t* p, int) {
    return F{float16_value(p[0]), float16_value(p[1]), float16_value(p[2]), float16_value(p[3])};
  }
  static void store_words(float* p, F x, int) { store(p, x); }
  static void store_bfloat16(uint16_t* p, F x, int) {
    const Words bits = to_bits(x);
    const Words rounded = bits + (((bits >> 16) & 1) + 0x7fff);
    const Words kept = (x == x) ? rounded : (bits | 0x00400000u);  // NaN stays one.
    for (int i = 0; i < kLanes; ++i) p[i] = static_cast<uint16_t>(kept[i] >> 16);
  }
  static void store_float16(uint16_t* p, F x, int) {
    for (int i = 0; i < kLanes; ++i) p[i] = float16_bits(x[i]);
  }

  static F flip_bits(F x, uint32_t and_bits, uint32_t xor_bits) {
    return from_bits((to_bits(x) & and_bits) ^ xor_bits);
  }

  static Mask greater(F a, F b) { return a > b; }
  static bool any(Mask m) { return (m[0] | m[1] | m[2] | m[3]) != 0; }
  static F select(Mask m, F yes, F no) { return m ? yes : no; }
  static Mask visible(const int32_t* position, int32_t first, int32_t last, int32_t dense_from) {
    Mask p;
    std::memcpy(&p, position, sizeof p);
    return (p >= first) & ((p <= last) | (p >= dense_from));
  }
  static Mask finite(F x) { return (to_bits(x) & 0x7f800000u) != 0x7f800000u; }
  static bool all_finite(F x) { return !any(~finite(x)); }
  static F finite_or_zero(F x) { return finite(x) ? x : zero(); }

  static F fraction(F x) { return x - floor(in_range(x)); }
  /// p * 2^floor(x), 0 below the normal range: a masked key must count exactly nothing.
  static F scale_by_floor(F p, F x) {
    const Mask exponent = __builtin_convertvector(floor(in_range(x)), Mask);
    const F scaled = from_bits(to_bits(p) + (__builtin_convertvector(exponent, Words) << 23));
    return (x < -126.0f) ? zero() : ((x == x) ? scaled : x);
  }

  [[gnu::always_inline]] static void transpose(F* r) {
    F t[4];
    for (int i = 0; i < 4; ++i) t[i] = F{r[0][i], r[1][i], r[2][i], r[3][i]};
    for (int i = 0; i < 4; ++i) r[i] = t[i];
  }

 private:
  static Words to_bits(F x) { return reinterpret_cast<Words>(x); }
  static F from_bits(Words x) { return reinterpret_cast<F>(x); }
  /// Where int32 holds floor(x); NaN becomes 0, its caller keeps the NaN.
  static F in_range(F x) {
    const F low = (x > -127.0f) ? x : set1(-127.0f);
    return (low < 127.0f) ? low : set1(127.0f);
  }
  static F floor(F x) {
    const F truncated = __builtin_convertvector(__builtin_convertvector(x, Mask), F);
    return (truncated > x) ? truncated - 1.0f : truncated;
  }
  static float float16_value(uint16_t h) {
    const uint32_t sign = uint32_t{h} >> 15 << 31;
    const uint32_t exponent = (h >> 10) & 31;
    const uint32_t mantissa = h & 0x3ffu;
    uint32_t bits;
    if (exponent == 31) {
      bits = 0x7f800000u | mantissa << 13;
    } else if (exponent != 0) {
      bits = (exponent + 112) << 23 | mantissa << 13;
    } else {
      const float subnormal = static_cast<float>(mantissa) * 0x1p-24f;
      std::memcpy(&bits, &subnormal, sizeof bits);
    }
    bits |= sign;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  /// Round to nearest even, by letting a float addition round at fp16's precision.
  static uint16_t float16_bits(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return sign | 0x7e00u;   // NaN.
    if (bits >= 0x477ff000u) return sign | 0x7c00u;  // Rounds to 65536 or more: inf.
    if (bits < 0x38800000u) {                        // Subnormal: units of 2^-24.
      float magnitude;
      std::memcpy(&magnitude, &bits, sizeof magnitude);
      const float shifted = magnitude + 0.5f;  // 0.5's last place is 2^-24.
      uint32_t shifted_bits;
      std::memcpy(&shifted_bits, &shifted, sizeof shifted_bits);
      return static_cast<uint16_t>(sign | (shifted_bits - 0x3f000000u));
    }
    bits += 0xfffu + (bits >> 13 & 1);
    return static_cast<uint16_t>(sign | ((bits >> 13) - (112u << 10)));
  }
};

}  // namespace
}  // namespace minference::cpu
