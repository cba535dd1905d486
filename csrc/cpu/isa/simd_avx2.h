// Eight-lane vectors for AVX2 + FMA + F16C. Same names as simd_avx512.h; the contract is in
// kernels_inl.h.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace minference::cpu {
namespace {

struct Simd {
  using F = __m256;
  using Mask = __m256;  // All bits of a lane set or clear.
  static constexpr int kLanes = 8;
  static constexpr int kRegs = 2;
  static constexpr int kKeys = 6;  // 12 accumulators + 2 operands + 1 broadcast of 16 registers.
  static constexpr bool kHasPairs = false;

  static F zero() { return _mm256_setzero_ps(); }
  static F set1(float x) { return _mm256_set1_ps(x); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F fms(F a, F b, F c) { return _mm256_fmsub_ps(a, b, c); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static float sum(F x) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }

  static F broadcast_word(const char* p) {
    float word;
    std::memcpy(&word, p, sizeof word);
    F x = _mm256_set1_ps(word);
    asm("" : "+x"(x));  // One load for both uses: see simd_avx512.h.
    return x;
  }

  // head_dim is a multiple of 8: n is always 8, and whole vectors are read and written.
  static F load_words(const float* p, int) { return _mm256_loadu_ps(p); }
  static F load_bfloat16(const uint16_t* p, int) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
  }
  static F load_float16(const uint16_t* p, int) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static void store_words(float* p, F x, int) { _mm256_storeu_ps(p, x); }
  static void store_bfloat16(uint16_t* p, F x, int) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x00400000));  // NaN stays one.
    rounded =
        _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
    const __m256i words = _mm256_srli_epi32(rounded, 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
  }
  static void store_float16(uint16_t* p, F x, int) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
  }

  static F flip_bits(F x, uint32_t and_bits, uint32_t xor_bits) {
    const __m256i kept = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(int(and_bits)));
    return _mm256_castsi256_ps(_mm256_xor_si256(kept, _mm256_set1_epi32(int(xor_bits))));
  }

  static Mask greater(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
  static bool any(Mask m) { return _mm256_movemask_ps(m) != 0; }
  static F select(Mask m, F yes, F no) { return _mm256_blendv_ps(no, yes, m); }
  static Mask visible(const int32_t* position, int32_t first, int32_t last, int32_t dense_from) {
    const __m256i p = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(position));
    const __m256i early = _mm256_cmpgt_epi32(_mm256_set1_epi32(first), p);
    const __m256i late = _mm256_cmpgt_epi32(p, _mm256_set1_epi32(last));
    const __m256i windowed = _mm256_cmpgt_epi32(_mm256_set1_epi32(dense_from), p);
    const __m256i hidden = _mm256_or_si256(early, _mm256_and_si256(late, windowed));
    return _mm256_castsi256_ps(_mm256_andnot_si256(hidden, _mm256_set1_epi32(-1)));
  }
  static F not_finite(F x) {
    const __m256i exponent = _mm256_set1_epi32(0x7f800000);
    const __m256i bits = _mm256_and_si256(_mm256_castps_si256(x), exponent);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(bits, exponent));
  }
  static bool all_finite(F x) { return !any(not_finite(x)); }
  static F finite_or_zero(F x) { return _mm256_andnot_ps(not_finite(x), x); }

  static F fraction(F x) { return _mm256_sub_ps(x, _mm256_floor_ps(x)); }
  /// p * 2^floor(x), 0 below the normal range: a masked key must count exactly nothing.
  static F scale_by_floor(F p, F x) {
    const __m256 clamped =
        _mm256_max_ps(_mm256_set1_ps(-126.0f), x);  // Second operand wins on NaN.
    const __m256i exponent = _mm256_cvttps_epi32(_mm256_floor_ps(clamped));
    const __m256 scaled = _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(exponent, 23)));
    return _mm256_and_ps(scaled, _mm256_cmp_ps(x, _mm256_set1_ps(-126.0f), _CMP_NLT_UQ));
  }

  [[gnu::always_inline]] static void transpose(F* r) {
    F t[8], u[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
      t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const int k = i / 2 * 4 + i % 2;  // Rows 4 (i / 2) .. + 3, halves low and high.
      u[2 * i] = _mm256_shuffle_ps(t[k], t[k + 2], 0x44);
      u[2 * i + 1] = _mm256_shuffle_ps(t[k], t[k + 2], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
      r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
    }
  }
};

}  // namespace
}  // namespace minference::cpu
