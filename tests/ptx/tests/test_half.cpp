// Arithmetic of f16 and bf16, alone and in pairs: rounded once, against 113 bits.
// SPDX-License-Identifier: Apache-2.0
#include "elementwise_test.h"
#include "float_reference.h"

using namespace ptxsim;
using namespace ptxsim::test;

namespace {

struct Half {
  std::string type;
  HalfFormat format;
  Values special;
};
const Half kHalves[] = {
    {"f16",
     kF16,
     {0, 0x8000, 1, 0x8001, 0x3ff, 0x400, 0x3bff, 0x3c00, 0x3c01, 0xbc00, 0x4200, 0x7bff, 0xfbff,
      0x7c00, 0xfc00, 0x7e00, 0xfe01}},
    {"bf16",
     kBf16,
     {0, 0x8000, 1, 0x8001, 0x7f, 0x80, 0x3f7f, 0x3f80, 0x3f81, 0xbf80, 0x4040, 0x7f7f, 0xff7f,
      0x7f80, 0xff80, 0x7fc0, 0xffc1}},
};

/// Bits of finite numbers close to each other, so that 113 bits hold their sums.
u64 near_one(const Half& half, std::mt19937_64& random) {
  const u64 exponent = static_cast<u64>(half.format.bias) - 12 + random() % 24;
  const u64 fraction = random() & ((1u << half.format.mantissa) - 1);
  return (random() & 0x8000) | exponent << half.format.mantissa | fraction;
}

std::vector<Values> rows_of(const Half& half, std::size_t count) {
  std::vector<Values> rows = tuples(half.special, std::min<std::size_t>(count, 2));
  std::mt19937_64 random(5);
  for (Values& row : rows) {
    while (row.size() < count) row.push_back(half.special[random() % half.special.size()]);
  }
  for (int i = 0; i < 2000; ++i) {
    Values row;
    for (std::size_t k = 0; k < count; ++k) row.push_back(near_one(half, random));
    rows.push_back(row);
  }
  return rows;
}

u64 flushed_half(const Half& half, u64 bits) {
  return (bits & half.format.infinity()) == 0 ? bits & 0x8000 : bits;
}

/// Maps the bits of one number per operand to the bits of the result.
using HalfFunction = std::function<u64(const Values& in)>;

/// Checks single numbers and pairs; the second number of a pair is that of the next row.
void check_half(const Half& half, const std::string& opcode, std::size_t count,
                const HalfFunction& f) {
  const std::vector<Values> rows = rows_of(half, count);
  check_rows({opcode + "." + half.type, "b16", std::vector<std::string>(count, "b16")}, rows, f);
  std::vector<Values> pairs;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    Values row(count);
    const Values& next = rows[(i + 1) % rows.size()];
    for (std::size_t k = 0; k < count; ++k) row[k] = next[k] << 16 | rows[i][k];
    pairs.push_back(row);
  }
  check_rows({opcode + "." + half.type + "x2", "b32", std::vector<std::string>(count, "b32")},
             pairs, [&](const Values& in) {
               Values low(in);
               Values high(in);
               for (u64& bits : low) bits &= 0xffff;
               for (u64& bits : high) bits >>= 16;
               return f(high) << 16 | f(low);
             });
}

struct Modifiers {
  bool flushes = false;
  bool saturates = false;
  bool has_relu = false;
  std::string text() const {
    return std::string(flushes ? ".ftz" : "") + (saturates ? ".sat" : "") +
           (has_relu ? ".relu" : "");
  }
};

void check_rounded(const Half& half, const std::string& root, std::size_t count,
                   const Modifiers& modifiers, const std::function<Quad(Quad, Quad, Quad)>& exact) {
  check_half(half, root + modifiers.text(), count, [&](const Values& in) {
    Quad x[3] = {};
    for (std::size_t i = 0; i < count; ++i) {
      const u64 bits = modifiers.flushes ? flushed_half(half, in[i]) : in[i];
      x[i] = Quad{value_of(half.format, bits)};
    }
    u64 result = rounded_to(half.format, exact(x[0], x[1], x[2]), "rn");
    if (modifiers.flushes) result = flushed_half(half, result);
    const double value = value_of(half.format, result);
    if (modifiers.saturates) {
      result = rounded_to(half.format, Quad{value > 0.0 ? std::fmin(value, 1.0) : 0.0}, "rn");
    }
    return modifiers.has_relu && value <= 0.0 ? u64{0} : result;
  });
}

void test_arithmetic() {
  const auto sum = [](Quad a, Quad b, Quad) { return a + b; };
  const auto difference = [](Quad a, Quad b, Quad) { return a - b; };
  const auto product = [](Quad a, Quad b, Quad) { return a * b; };
  const auto fma = [](Quad a, Quad b, Quad c) {
    const Quad ab = a * b;
    const Quad result = ab + c;
    const bool c_is_small = (ab < 0 ? -ab : ab) >= (c < 0 ? -c : c);
    const Quad lost = c_is_small ? c - (result - ab) : ab - (result - c);
    // Bits beyond the 113 still break a tie.
    if (lost != lost || lost == 0) return result;
    const Quad step = (result < 0 ? -result : result) * Quad{0x1p-112};
    return lost > 0 ? result + step : result - step;
  };
  for (const Half& half : kHalves) {
    for (const std::string rounding : {"", ".rn"}) {
      check_rounded(half, "add" + rounding, 2, {}, sum);
      check_rounded(half, "sub" + rounding, 2, {}, difference);
      check_rounded(half, "mul" + rounding, 2, {}, product);
    }
    check_rounded(half, "fma.rn", 3, {}, fma);
    check_rounded(half, "fma.rn", 3, {.has_relu = true}, fma);
  }
  for (const Modifiers modifiers :
       {Modifiers{.flushes = true}, Modifiers{.saturates = true}, Modifiers{true, true, false}}) {
    check_rounded(kHalves[0], "add", 2, modifiers, sum);
    check_rounded(kHalves[0], "sub", 2, modifiers, difference);
    check_rounded(kHalves[0], "mul", 2, modifiers, product);
    check_rounded(kHalves[0], "fma.rn", 3, modifiers, fma);
  }
}

/// A much smaller addend breaks a tie of the product; rounding twice would get it wrong.
void test_single_rounding() {
  // bf16: 1.0078125 * 1.5 = 1.51171875, halfway between two numbers; plus or minus 2^-100.
  const Values row = {0x3f81, 0x3fc0};
  const u64 tiny = u64{127 - 100} << 7;
  const u64 above = rounded_to(kBf16, Quad{1.512}, "rn");
  const u64 below = rounded_to(kBf16, Quad{1.511}, "rn");
  CHECK(above == below + 1);
  check_rows({"fma.rn.bf16", "b16", {"b16", "b16", "b16"}},
             {{row[0], row[1], tiny}, {row[0], row[1], tiny | 0x8000}},
             [&](const Values& in) { return (in[2] & 0x8000) != 0 ? below : above; });
  check_rows({"fma.rn.bf16x2", "b32", {"b32", "b32", "b32"}},
             {{row[0] << 16 | row[0], row[1] << 16 | row[1], (tiny | 0x8000) << 16 | tiny}},
             [&](const Values&) { return below << 16 | above; });
}

void test_min_max() {
  for (const Half& half : kHalves) {
    for (const bool is_max : {false, true}) {
      for (const bool keeps_nan : {false, true}) {
        for (const bool takes_sign : {false, true}) {
          const std::string opcode = std::string(is_max ? "max" : "min") +
                                     (keeps_nan ? ".NaN" : "") + (takes_sign ? ".xorsign.abs" : "");
          check_half(half, opcode, 2, [&](const Values& in) -> u64 {
            const u64 mask = takes_sign ? 0x7fff : 0xffff;
            const double a = value_of(half.format, in[0] & mask);
            const double b = value_of(half.format, in[1] & mask);
            const bool has_nan = std::isnan(a) || std::isnan(b);
            if ((std::isnan(a) && std::isnan(b)) || (keeps_nan && has_nan)) return 0x7fff;
            bool takes_a = std::isnan(b) || (!std::isnan(a) && (a < b) != is_max);
            if (a == b) takes_a = std::signbit(a) != is_max;
            const u64 chosen = (takes_a ? in[0] : in[1]) & mask;
            return takes_sign ? chosen | ((in[0] ^ in[1]) & 0x8000) : chosen;
          });
        }
      }
    }
  }
  check_half(kHalves[0], "max.ftz", 2, [](const Values& in) -> u64 {
    const u64 bits[] = {flushed_half(kHalves[0], in[0]), flushed_half(kHalves[0], in[1])};
    const double a = value_of(kF16, bits[0]);
    const double b = value_of(kF16, bits[1]);
    if (std::isnan(a) && std::isnan(b)) return 0x7fff;
    if (a == b) return std::signbit(a) ? bits[1] : bits[0];
    return std::isnan(b) || a > b ? bits[0] : bits[1];
  });
}

void test_signs() {
  for (const Half& half : kHalves) {
    check_half(half, "neg", 1, [](const Values& in) { return in[0] ^ 0x8000; });
    check_half(half, "abs", 1, [](const Values& in) { return in[0] & 0x7fff; });
  }
  check_half(kHalves[0], "neg.ftz", 1,
             [](const Values& in) { return flushed_half(kHalves[0], in[0]) ^ 0x8000; });
}

void test_functions() {
  for (const Half& half : kHalves) {
    check_half(half, "tanh.approx", 1, [&](const Values& in) {
      return rounded_to(half.format, Quad{std::tanh(value_of(half.format, in[0]))}, "rn");
    });
  }
  check_half(kHalves[0], "ex2.approx", 1, [](const Values& in) {
    return rounded_to(kF16, Quad{std::exp2(value_of(kF16, in[0]))}, "rn");
  });
  check_half(kHalves[1], "ex2.approx.ftz", 1, [](const Values& in) {
    const double x = value_of(kBf16, flushed_half(kHalves[1], in[0]));
    return flushed_half(kHalves[1], rounded_to(kBf16, Quad{std::exp2(x)}, "rn"));
  });
}

}  // namespace

int main() {
  test_arithmetic();
  test_single_rounding();
  test_min_max();
  test_signs();
  test_functions();
  CHECK_FORMS_OF("9.7.4.", "add", "sub", "mul", "fma", "neg", "abs", "min", "max", "tanh", "ex2");
  return finish();
}
