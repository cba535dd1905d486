// Arithmetic of f16 and bf16, alone and in pairs (section 9.7.4). Every result is rounded once.
// SPDX-License-Identifier: Apache-2.0
#include "half.h"

#include <cmath>

#include "elementwise.h"
#include "instructions.h"

namespace ptxsim {
namespace {

/// Rounds f(double...) to T, to nearest even; then applies .sat or .relu.
template <class T, class F>
struct Rounded {
  F f;
  bool saturates = false;
  bool has_relu = false;

  template <class... A>
  T operator()(A... a) const {
    double value = f(double{a.value()}...);
    if (saturates) value = value > 0.0 ? std::min(value, 1.0) : 0.0;
    if (has_relu && value <= 0.0) value = 0.0;
    return {static_cast<u16>(round_to<T::kFormat>(value, Rounding::kNearestEven))};
  }
};

/// f16x2 has subnormals; .ftz makes them zeros.
template <class T>
T flush_half(T value) {
  constexpr u16 kMagnitude = 0x7fff;
  constexpr u16 kLeastNormal = 1u << T::kFormat.mantissa_bits;
  const bool is_subnormal = (value.bits & kMagnitude) < kLeastNormal;
  return {static_cast<u16>(is_subnormal ? value.bits & ~kMagnitude : value.bits)};
}

template <std::size_t kOperands, class T, class F>
void on_values(Decoder& decoder, F f) {
  if constexpr (kOperands == 1) {
    unary<T>(decoder, f);
  } else if constexpr (kOperands == 2) {
    binary<T>(decoder, f);
  } else {
    ternary<T>(decoder, f);
  }
}

/// Applies f to 16-bit floats of one format, alone or in pairs.
template <std::size_t kOperands, class T, class F>
void on_halves(Decoder& decoder, F f) {
  const bool flushes = decoder.has("ftz");
  const auto one = [=](auto... a) { return flushes ? flush_half(f(flush_half(a)...)) : f(a...); };
  if (decoder.last_word().ends_with("x2")) {
    on_values<kOperands, Pair<T>>(
        decoder, [=](auto... pair) { return Pair<T>{one(pair.low...), one(pair.high...)}; });
  } else {
    on_values<kOperands, T>(decoder, one);
  }
}

template <std::size_t kOperands, class F>
void rounded(Decoder& decoder, F f) {
  const bool saturates = decoder.has("sat");
  const bool has_relu = decoder.has("relu");
  if (decoder.last_word().starts_with("bf16")) {
    on_halves<kOperands, Bf16>(decoder, Rounded<Bf16, F>{f, saturates, has_relu});
  } else {
    on_halves<kOperands, F16>(decoder, Rounded<F16, F>{f, saturates, has_relu});
  }
}

/// Functions that choose a value or change a sign, and so need no rounding.
template <std::size_t kOperands, class F>
void exact(Decoder& decoder, F f) {
  if (decoder.last_word().starts_with("bf16")) {
    on_halves<kOperands, Bf16>(decoder, f);
  } else {
    on_halves<kOperands, F16>(decoder, f);
  }
}

struct Extreme {
  bool is_max = false;
  bool keeps_nan = false;
  bool takes_sign = false;

  template <class T>
  T operator()(T a, T b) const {
    constexpr u16 kSign = 0x8000;
    const T nan = {static_cast<u16>(T::kFormat.canonical_nan())};
    const auto sign = static_cast<u16>((a.bits ^ b.bits) & kSign);
    if (takes_sign) {
      a.bits &= static_cast<u16>(~kSign);
      b.bits &= static_cast<u16>(~kSign);
    }
    const float x = a.value();
    const float y = b.value();
    T result = a;
    if (x != x || y != y) {
      result = keeps_nan || (x != x && y != y) ? nan : x != x ? b : a;
    } else if (x != y) {
      result = (x < y) != is_max ? a : b;
    } else {
      // They differ only in the sign of zero.
      result.bits = static_cast<u16>(is_max ? a.bits & b.bits : a.bits | b.bits);
    }
    if (takes_sign && result.value() == result.value()) result.bits |= sign;
    return result;
  }
};

}  // namespace

void decode_add_half(Decoder& decoder) {
  if (decoder.word(0) == "sub")
    return rounded<2>(decoder, [](double a, double b) { return sum_to_odd(a, -b); });
  rounded<2>(decoder, [](double a, double b) { return sum_to_odd(a, b); });
}
void decode_mul_half(Decoder& decoder) {
  rounded<2>(decoder, [](double a, double b) { return a * b; });
}
void decode_fma_half(Decoder& decoder) {
  rounded<3>(decoder, [](double a, double b, double c) { return fma_to_odd(a, b, c); });
}
void decode_ex2_half(Decoder& decoder) {
  rounded<1>(decoder, [](double a) { return std::exp2(a); });
}
void decode_tanh_half(Decoder& decoder) {
  rounded<1>(decoder, [](double a) { return std::tanh(a); });
}

void decode_min_half(Decoder& decoder) {
  exact<2>(decoder, Extreme{.is_max = decoder.word(0) == "max",
                            .keeps_nan = decoder.has("NaN"),
                            .takes_sign = decoder.has("xorsign")});
}
void decode_abs_half(Decoder& decoder) {
  exact<1>(decoder, [](auto a) { return decltype(a){static_cast<u16>(a.bits & 0x7fffu)}; });
}
void decode_neg_half(Decoder& decoder) {
  exact<1>(decoder, [](auto a) { return decltype(a){static_cast<u16>(a.bits ^ 0x8000u)}; });
}

}  // namespace ptxsim
