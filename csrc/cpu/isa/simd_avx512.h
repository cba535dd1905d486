// Sixteen-lane vectors for AVX-512 (F, BW, VL, DQ) and, if the source that includes this is
// compiled for them, BF16 dot products. The contract is in kernels_inl.h.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace minference::cpu {
namespace {

struct Simd {
  using F = __m512;
  using Mask = __mmask16;
  static constexpr int kLanes = 16;
  static constexpr int kRegs = 2;  // 32 rows: q^T, P^T and a value panel fit the 48 KB L1 together.
  static constexpr int kKeys = 8;  // 16 accumulators + 2 operands + 1 broadcast of 32 registers;
                                   // divides 64 keys and every head_dim, so one tail kernel of 4.
#if defined(__AVX512BF16__)
  static constexpr bool kHasPairs = true;
#else
  static constexpr bool kHasPairs = false;
#endif

  static F zero() { return _mm512_setzero_ps(); }
  static F set1(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F fms(F a, F b, F c) { return _mm512_fmsub_ps(a, b, c); }
  /// b where either is NaN.
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static float sum(F x) { return _mm512_reduce_add_ps(x); }

  /// One 32-bit word to all lanes. The barrier keeps it one load: gcc would fold it into each of
  /// the FMAs that use it (216 instead of 272 GF/s fp32 on a Zen 5 core).
  static F broadcast_word(const char* p) {
    int32_t word;
    std::memcpy(&word, p, sizeof word);
    F x = _mm512_castsi512_ps(_mm512_set1_epi32(word));
    asm("" : "+v"(x));
    return x;
  }

#if defined(__AVX512BF16__)
  /// acc + a.low * b.low + a.high * b.high on bf16 halves.
  static F dot_pairs(F a, F b, F acc) {
    return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  /// Lane = (bf16(low), bf16(high)), round to nearest even.
  static F round_pairs(F low, F high) {
    const __m512i packed = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
    const __m512i interleave =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(interleave, packed));
  }
#endif
  /// 32 elements of two 16-bit rows -> 32 pairs (a[i], b[i]), 16 to each destination.
  static void interleave_rows(const uint16_t* a, const uint16_t* b, float* first, float* second) {
    const __m512i x = _mm512_loadu_si512(a);
    const __m512i y = _mm512_loadu_si512(b);
    _mm512_storeu_ps(first, interleave(x, y, low_halves()));
    _mm512_storeu_ps(second,
                     interleave(x, y, _mm512_add_epi16(low_halves(), _mm512_set1_epi16(16))));
  }
  /// The same for the last `count` < 32 elements of rows; the rest is 0. `second` only if count
  /// > 16.
  static void interleave_row_ends(const uint16_t* a, const uint16_t* b, int count, float* first,
                                  float* second) {
    const auto valid = static_cast<__mmask32>((1u << count) - 1);
    const __m512i x = _mm512_maskz_loadu_epi16(valid, a);
    const __m512i y = _mm512_maskz_loadu_epi16(valid, b);
    _mm512_storeu_ps(first, interleave(x, y, low_halves()));
    if (count <= 16) return;
    _mm512_storeu_ps(second,
                     interleave(x, y, _mm512_add_epi16(low_halves(), _mm512_set1_epi16(16))));
  }
  static __m512i low_halves() {
    return _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38,
                            6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  }
  static F interleave(__m512i x, __m512i y, __m512i order) {
    return _mm512_castsi512_ps(_mm512_permutex2var_epi16(x, order, y));
  }

  // ---- Elements of a row, the first n lanes; the others read as 0 and are not written.

  static Mask first(int n) { return n >= 16 ? Mask{0xffff} : static_cast<Mask>((1u << n) - 1); }
  static F load_words(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static F load_bfloat16(const uint16_t* p, int n) {
    const __m256i half = _mm256_maskz_loadu_epi16(first(n), p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  }
  static F load_float16(const uint16_t* p, int n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), p));
  }
  // Masked stores are slow on Zen: only where a row ends.
  static void store_words(float* p, F x, int n) {
    if (n >= kLanes) return _mm512_storeu_ps(p, x);
    _mm512_mask_storeu_ps(p, first(n), x);
  }
  static void store_bfloat16(uint16_t* p, F x, int n) {
#if defined(__AVX512BF16__)
    const __m256i half = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x));
#else
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    // NaN: keep it one, rounding could carry its mantissa away.
    rounded = _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), bits,
                                   _mm512_set1_epi32(0x00400000));
    const __m256i half = _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
#endif
    store_halves(p, half, n);
  }
  static void store_float16(uint16_t* p, F x, int n) {
    store_halves(p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT), n);
  }
  static void store_halves(uint16_t* p, __m256i x, int n) {
    if (n >= kLanes) return _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
    _mm256_mask_storeu_epi16(p, first(n), x);
  }

  static F flip_bits(F x, uint32_t and_bits, uint32_t xor_bits) {
    const __m512i kept = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(int(and_bits)));
    return _mm512_castsi512_ps(_mm512_xor_si512(kept, _mm512_set1_epi32(int(xor_bits))));
  }

  // ---- Masks

  static Mask greater(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
  static bool any(Mask m) { return m != 0; }
  static F select(Mask m, F yes, F no) { return _mm512_mask_mov_ps(no, m, yes); }
  /// Lanes with first <= position <= last, or position >= both first and dense_from.
  static Mask visible(const int32_t* position, int32_t first, int32_t last, int32_t dense_from) {
    const __m512i p = _mm512_loadu_si512(position);
    const Mask near = static_cast<Mask>(_mm512_cmple_epi32_mask(p, _mm512_set1_epi32(last)) |
                                        _mm512_cmpge_epi32_mask(p, _mm512_set1_epi32(dense_from)));
    return _mm512_mask_cmpge_epi32_mask(near, p, _mm512_set1_epi32(first));
  }
  static bool all_finite(F x) {  // Neither inf nor NaN.
    return _mm512_fpclass_ps_mask(x, 0x01 | 0x08 | 0x10 | 0x80) == 0;
  }
  static F finite_or_zero(F x) {
    return _mm512_maskz_mov_ps(
        static_cast<Mask>(~_mm512_fpclass_ps_mask(x, 0x01 | 0x08 | 0x10 | 0x80)), x);
  }

  // ---- 2^x: polynomial on the fraction, then the exponent. -inf gives +0, NaN stays.

  static F fraction(F x) { return _mm512_reduce_ps(x, 0x09); }  // x - floor(x), no exceptions.
  static F scale_by_floor(F p, F x) { return _mm512_scalef_ps(p, x); }

  /// Transposes 16 x 16 words in place.
  [[gnu::always_inline]] static void transpose(F* r) {
    __m512i a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) a[i] = _mm512_castps_si512(r[i]);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      b[2 * i] = _mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
      b[2 * i + 1] = _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      a[4 * i] = _mm512_unpacklo_epi64(b[4 * i], b[4 * i + 2]);
      a[4 * i + 1] = _mm512_unpackhi_epi64(b[4 * i], b[4 * i + 2]);
      a[4 * i + 2] = _mm512_unpacklo_epi64(b[4 * i + 1], b[4 * i + 3]);
      a[4 * i + 3] = _mm512_unpackhi_epi64(b[4 * i + 1], b[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      b[i] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88);
      b[i + 4] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
      b[i + 8] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88);
      b[i + 12] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      r[i] = _mm512_castsi512_ps(_mm512_shuffle_i32x4(b[i], b[i + 8], 0x88));
      r[i + 8] = _mm512_castsi512_ps(_mm512_shuffle_i32x4(b[i], b[i + 8], 0xdd));
    }
  }
};

}  // namespace
}  // namespace minference::cpu
