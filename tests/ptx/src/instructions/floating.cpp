// Floating-point arithmetic of f32 and f64 (section 9.7.3).
//
// Results are IEEE 754's, rounded once as the modifier says; a NaN result of f32 is the canonical
// one. The .approx functions round what the host's library computes in double to the nearest float,
// except within 2^-45 of the middle of two floats: the manual allows more.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "elementwise.h"
#include "half.h"
#include "instructions.h"

namespace ptxsim {
namespace {

float saturate(float value) { return value > 0.0f ? std::min(value, 1.0f) : 0.0f; }

Rounding rounding_of(const Decoder& decoder) {
  if (decoder.has("rz")) return Rounding::kZero;
  if (decoder.has("rm")) return Rounding::kDown;
  return decoder.has("rp") ? Rounding::kUp : Rounding::kNearestEven;
}

float round_float(double value, Rounding rounding) {
  return std::bit_cast<float>(round_to<kFormatF32>(value, rounding));
}

float rounded_sum(double a, double b, Rounding rounding) {
  // An exact cancellation gives -0 when rounded down, and +0 otherwise.
  const bool cancels = a == -b && std::isfinite(a) && std::signbit(a) != std::signbit(b);
  if (cancels && rounding == Rounding::kDown) return -0.0f;
  return round_float(sum_to_odd(a, b), rounding);
}

/// Applies f to floats with .ftz and .sat. Without them it stays a bare loop.
template <class F, class... A>
void float_elementwise(Decoder& decoder, F f) {
  const bool flushes = decoder.has("ftz");
  const bool saturates = decoder.has("sat");
  if (!flushes && !saturates) {
    return elementwise<float, A...>(decoder, [f](A... a) { return canonical(f(a...)); });
  }
  if (!saturates) {
    return elementwise<float, A...>(decoder,
                                    [f](A... a) { return flush(canonical(f(flush(a)...))); });
  }
  elementwise<float, A...>(decoder, [=](A... a) {
    const float result = flushes ? flush(f(flush(a)...)) : f(a...);
    return saturate(result);
  });
}
template <class F>
void float_unary(Decoder& decoder, F f) {
  float_elementwise<F, float>(decoder, f);
}
template <class F>
void float_binary(Decoder& decoder, F f) {
  float_elementwise<F, float, float>(decoder, f);
}
template <class F>
void float_ternary(Decoder& decoder, F f) {
  float_elementwise<F, float, float, float>(decoder, f);
}

/// a / b rounded to odd: `quotient` is rounded to nearest in double, and `remainder` is what is
/// left of the dividend.
double quotient_to_odd(double a, double b) {
  const double quotient = a / b;
  if (!std::isfinite(quotient) || quotient == 0.0 || b == 0.0) return quotient;
  const double remainder = std::fma(-quotient, b, a);
  return to_odd(quotient, b > 0.0 ? remainder : -remainder);
}
double root_to_odd(double a) {
  const double root = std::sqrt(a);
  if (!std::isfinite(root) || root == 0.0) return root;
  return to_odd(root, std::fma(-root, root, a));
}

/// ln(2)^i / i!: the coefficients of the series of 2^x.
constexpr auto kExp2Factors = [] {
  std::array<double, 12> factors = {1.0};
  for (std::size_t i = 1; i < factors.size(); ++i) {
    factors[i] = factors[i - 1] * 0x1.62e42fefa39efp-1 / static_cast<double>(i);
  }
  return factors;
}();
template <std::size_t... I>
double exp2_series(double x, std::index_sequence<I...>) {
  double sum = kExp2Factors.back();
  ((sum = sum * x + kExp2Factors[sizeof...(I) - 1 - I]), ...);
  return sum;
}

/// 2^a = 2^n * 2^f, |f| <= 1/2, with an error below 2^-45 before it is rounded to float. Softmax
/// depends on its speed, so it has no branch or call and vectorises.
float exp2_approx(float a) {
  // Anything larger gives infinity or zero.
  constexpr u32 kBeyond = std::bit_cast<u32>(200.0f);
  constexpr double kRound = 0x1.8p52;  // Added to a small number, it makes the last bit worth one.
  const u32 bits = std::bit_cast<u32>(a);
  const u32 magnitude = std::min(bits & 0x7fffffffu, kBeyond);
  const double x = std::bit_cast<float>(magnitude | (bits & 0x80000000u));
  const double shifted = x + kRound;
  const double f = x - (shifted - kRound);
  const double sum = exp2_series(f, std::make_index_sequence<kExp2Factors.size() - 1>());
  const u64 exponent = (std::bit_cast<u64>(shifted) + 1023) << 52;
  const auto result = static_cast<float>(sum * std::bit_cast<double>(exponent));
  const u32 if_nan = u32{0} - u32{a != a};
  return std::bit_cast<float>(std::bit_cast<u32>(result) | if_nan);
}
float log2_approx(float a) { return static_cast<float>(std::log2(double{a})); }
float rsqrt_approx(float a) { return static_cast<float>(1.0 / std::sqrt(double{a})); }
float sin_approx(float a) { return static_cast<float>(std::sin(double{a})); }
float cos_approx(float a) { return static_cast<float>(std::cos(double{a})); }
float tanh_approx(float a) { return static_cast<float>(std::tanh(double{a})); }

/// Maps floats to integers in the same order; -0 is below +0.
s32 rank_of(float value) {
  const s32 bits = std::bit_cast<s32>(value);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}
s64 rank_of(double value) {
  const s64 bits = std::bit_cast<s64>(value);
  return bits ^ ((bits >> 63) & (~u64{0} >> 1));
}
template <class T>
T lesser(T a, T b) {
  const T chosen = rank_of(b) < rank_of(a) ? b : a;
  const T number = a != a ? b : chosen;
  return b != b ? a : number;
}
template <class T>
T greater(T a, T b) {
  const T chosen = rank_of(a) < rank_of(b) ? b : a;
  const T number = a != a ? b : chosen;
  return b != b ? a : number;
}

/// With .NaN a NaN and a number give NaN; otherwise they give the number.
template <class F>
void float_extreme(Decoder& decoder, F f) {
  const bool keeps_nan = decoder.has("NaN");
  const bool takes_sign = decoder.has("xorsign");
  if (!keeps_nan && !takes_sign) return float_binary(decoder, f);
  float_binary(decoder, [=](float a, float b) {
    if (keeps_nan && (a != a || b != b)) return a + b;
    if (!takes_sign) return f(a, b);
    const float sign = std::signbit(a) != std::signbit(b) ? -1.0f : 1.0f;
    return std::copysign(f(std::fabs(a), std::fabs(b)), sign);
  });
}

}  // namespace

// ---- Sums and products -------------------------------------------------------------------------

void decode_add_f32(Decoder& decoder) {
  const Rounding rounding = rounding_of(decoder);
  const float sign = decoder.word(0) == "sub" ? -1.0f : 1.0f;
  if (rounding != Rounding::kNearestEven) {
    return float_binary(decoder, [=](float a, float b) {
      return rounded_sum(double{a}, double{sign} * double{b}, rounding);
    });
  }
  if (sign > 0.0f) return float_binary(decoder, [](float a, float b) { return a + b; });
  float_binary(decoder, [](float a, float b) { return a - b; });
}

void decode_mul_f32(Decoder& decoder) {
  const Rounding rounding = rounding_of(decoder);
  if (rounding == Rounding::kNearestEven) {
    return float_binary(decoder, [](float a, float b) { return a * b; });
  }
  float_binary(decoder,
               [=](float a, float b) { return round_float(double{a} * double{b}, rounding); });
}

void decode_fma_f32(Decoder& decoder) {
  const Rounding rounding = rounding_of(decoder);
  if (rounding == Rounding::kNearestEven) {
    return float_ternary(decoder,
                         [](float a, float b, float c) { return __builtin_fmaf(a, b, c); });
  }
  float_ternary(decoder, [=](float a, float b, float c) {
    return rounded_sum(double{a} * double{b}, double{c}, rounding);
  });
}

void decode_arithmetic_f64(Decoder& decoder) {
  const std::string_view root = decoder.word(0);
  if (root == "add") return binary<double>(decoder, [](double a, double b) { return a + b; });
  if (root == "sub") return binary<double>(decoder, [](double a, double b) { return a - b; });
  if (root == "mul") return binary<double>(decoder, [](double a, double b) { return a * b; });
  if (root == "div") return binary<double>(decoder, [](double a, double b) { return a / b; });
  if (root == "rcp") return unary<double>(decoder, [](double a) { return 1.0 / a; });
  if (root == "sqrt") return unary<double>(decoder, [](double a) { return std::sqrt(a); });
  if (root == "rsqrt") return unary<double>(decoder, [](double a) { return 1.0 / std::sqrt(a); });
  ternary<double>(decoder, [](double a, double b, double c) { return __builtin_fma(a, b, c); });
}

// ---- Quotients and functions -------------------------------------------------------------------

void decode_div_f32(Decoder& decoder) {
  const Rounding rounding = rounding_of(decoder);
  if (rounding == Rounding::kNearestEven) {
    return float_binary(decoder, [](float a, float b) { return a / b; });
  }
  float_binary(decoder,
               [=](float a, float b) { return round_float(quotient_to_odd(a, b), rounding); });
}

void decode_rcp_f32(Decoder& decoder) {
  const Rounding rounding = rounding_of(decoder);
  if (rounding == Rounding::kNearestEven) {
    return float_unary(decoder, [](float a) { return 1.0f / a; });
  }
  float_unary(decoder, [=](float a) { return round_float(quotient_to_odd(1.0, a), rounding); });
}

void decode_sqrt_f32(Decoder& decoder) {
  const Rounding rounding = rounding_of(decoder);
  if (rounding == Rounding::kNearestEven) {
    return float_unary(decoder, [](float a) { return std::sqrt(a); });
  }
  float_unary(decoder, [=](float a) { return round_float(root_to_odd(a), rounding); });
}

void decode_function_f32(Decoder& decoder) {
  const std::string_view root = decoder.word(0);
  if (root == "ex2") return float_unary(decoder, [](float a) { return exp2_approx(a); });
  float (*function)(float) = root == "lg2"     ? log2_approx
                             : root == "rsqrt" ? rsqrt_approx
                             : root == "sin"   ? sin_approx
                             : root == "cos"   ? cos_approx
                                               : tanh_approx;
  float_unary(decoder, function);
}

// ---- Signs and order ---------------------------------------------------------------------------

void decode_abs_float(Decoder& decoder) {
  if (decoder.last_word() == "f64")
    return unary<double>(decoder, [](double a) { return std::fabs(a); });
  const bool flushes = decoder.has("ftz");
  unary<float>(decoder, [=](float a) { return std::fabs(flushes ? flush(a) : a); });
}

void decode_neg_float(Decoder& decoder) {
  if (decoder.last_word() == "f64") return unary<double>(decoder, [](double a) { return -a; });
  const bool flushes = decoder.has("ftz");
  unary<float>(decoder, [=](float a) { return -(flushes ? flush(a) : a); });
}

void decode_min_float(Decoder& decoder) {
  if (decoder.last_word() == "f64") return binary<double>(decoder, lesser<double>);
  float_extreme(decoder, [](float a, float b) { return lesser(a, b); });
}

void decode_max_float(Decoder& decoder) {
  if (decoder.last_word() == "f64") return binary<double>(decoder, greater<double>);
  float_extreme(decoder, [](float a, float b) { return greater(a, b); });
}

/// b with the sign of a.
void decode_copysign(Decoder& decoder) {
  if (decoder.last_word() == "f64") {
    return binary<double>(decoder, [](double a, double b) { return std::copysign(b, a); });
  }
  binary<float>(decoder, [](float a, float b) { return std::copysign(b, a); });
}

void decode_testp(Decoder& decoder) {
  decoder.expect_operands(2);
  const std::string_view what = decoder.word(1);
  const int kinds = what == "finite"       ? (1 << FP_NORMAL) | (1 << FP_SUBNORMAL) | (1 << FP_ZERO)
                    : what == "infinite"   ? 1 << FP_INFINITE
                    : what == "number"     ? ~(1 << FP_NAN)
                    : what == "notanumber" ? 1 << FP_NAN
                    : what == "normal"     ? 1 << FP_NORMAL
                                           : 1 << FP_SUBNORMAL;
  const bool is_double = decoder.last_word() == "f64";
  const Reg from = decoder.read(1, is_double ? 8 : 4);
  const Reg to = decoder.write(0, 0);
  decoder.execute([=](Warp& warp, u32 lanes) {
    u32 result = 0;
    each_lane(lanes, [&](u32 lane) {
      const int kind = is_double ? std::fpclassify(warp.lanes<double>(from)[lane])
                                 : std::fpclassify(warp.lanes<float>(from)[lane]);
      result |= static_cast<u32>((kinds >> kind) & 1) << lane;
    });
    set_bits(warp.predicate(to), lanes, result);
  });
}

}  // namespace ptxsim
