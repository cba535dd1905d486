// Arithmetic per dtype, and the exponential: see kernels_inl.h for the vectors it is written over.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/isa/kernels.h"

namespace minference::cpu {
namespace {

using F = Simd::F;
constexpr int kLanes = Simd::kLanes;
constexpr int kRegs = Simd::kRegs;
constexpr int kRows = kLanes * kRegs;
static_assert(kRows <= kMaxRows && kBlock % kRows == 0);

constexpr float kInfinity = __builtin_inff();

constexpr int round_up_4(int x) { return (x + 3) & ~3; }

struct Float32 {
  using Element = float;
  static constexpr bool kPairs = false;
  static constexpr bool kConverts = false;
  static constexpr int kExpDegree = 5;
  static F load(const Element* p, int n) { return Simd::load_words(p, n); }
  static void store(Element* p, F x, int n) { Simd::store_words(p, x, n); }
};

/// 16-bit tensors, fp32 arithmetic: K and V tiles are converted once for all units of an item.
struct BFloat16 {
  using Element = uint16_t;
  static constexpr bool kPairs = false;
  static constexpr bool kConverts = true;
  static constexpr int kExpDegree = 4;
  static F load(const Element* p, int n) { return Simd::load_bfloat16(p, n); }
  static void store(Element* p, F x, int n) { Simd::store_bfloat16(p, x, n); }
};

struct Float16 {
  using Element = uint16_t;
  static constexpr bool kPairs = false;
  static constexpr bool kConverts = true;
  static constexpr int kExpDegree = 4;
  static F load(const Element* p, int n) { return Simd::load_float16(p, n); }
  static void store(Element* p, F x, int n) { Simd::store_float16(p, x, n); }
};

/// bf16 dot products: a word is two neighbours along the summed dimension. K rows already are such
/// words (pairs along head_dim); V is packed into pairs of keys, P rounded to pairs of keys.
struct BFloat16Pairs : BFloat16 {
  using Vectors = Simd;  // A dependent name: the pair functions need exist only where kHasPairs.
  static constexpr bool kPairs = true;
  static constexpr bool kConverts = false;
};

template <typename Math>
F multiply_add(F a, F b, F acc) {
  if constexpr (Math::kPairs) {
    return Math::Vectors::dot_pairs(a, b, acc);
  } else {
    return Simd::fma(a, b, acc);
  }
}

/// Words per row of K and q^T.
template <typename Math>
constexpr int row_words(int head_dim) {
  return Math::kPairs ? head_dim / 2 : head_dim;
}

/// 2^x by a minimax polynomial in relative error on [0, 1): 2.6e-6 at degree 4 (below bf16's and
/// fp16's rounding, and good for an lse to 1e-5), 7.5e-8 at degree 5.
template <int kDegree>
F exp2(F x) {
  static constexpr float kDegree4[] = {1.0000026226f, 0.6930038333f, 0.2414427549f, 0.0520114601f,
                                       0.0135341678f};
  static constexpr float kDegree5[] = {0.9999999404f, 0.6931530833f,  0.2401536107f,
                                       0.0558263175f, 0.00898933969f, 0.00187757669f};
  const float* c = kDegree == 4 ? kDegree4 : kDegree5;
  const F fraction = Simd::fraction(x);
  F p = Simd::set1(c[kDegree]);
#pragma GCC unroll 5
  for (int i = kDegree - 1; i >= 0; --i) p = Simd::fma(p, fraction, Simd::set1(c[i]));
  return Simd::scale_by_floor(p, x);
}

}  // namespace
}  // namespace minference::cpu
