// Floating-point arithmetic of f32 and f64 against the host's, in its rounding modes;
// approximations against double.
// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "elementwise_test.h"
#include "float_reference.h"

using namespace ptxsim;
using namespace ptxsim::test;

namespace {

const Values kFloats = {0,          0x80000000, 1,          0x80000001, 0x007fffff,
                        0x00800000, 0x33800000, 0x34000000, 0x3f7fffff, 0x3f800000,
                        0x3f800001, 0xbf800000, 0x40400000, 0x4b000001, 0x7f7fffff,
                        0xff7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc12345};
const Values kDoubles = {0,
                         u64{1} << 63,
                         1,
                         0x0010000000000000,
                         0x3ca0000000000000,
                         0x3ff0000000000000,
                         0x3ff0000000000001,
                         0xbff0000000000000,
                         0x7fefffffffffffff,
                         0x7ff0000000000000,
                         0xfff0000000000000};

/// Floats of similar sizes, so that their sums and products round.
std::vector<Values> moderate(std::size_t count) {
  std::vector<Values> rows;
  std::mt19937_64 random(3);
  for (int i = 0; i < 400; ++i) {
    Values row;
    for (std::size_t k = 0; k < count; ++k) {
      const u64 exponent = 0x70 + random() % 0x20;
      row.push_back((random() & 0x807fffff) | exponent << 23);
    }
    rows.push_back(row);
  }
  return rows;
}
std::vector<Values> float_rows(std::size_t count) {
  std::vector<Values> rows = with_random(moderate(count), 200, count);
  const auto special = tuples(kFloats, std::min<std::size_t>(count, 2));
  for (Values row : special) {
    while (row.size() < count) row.push_back(row[0] ^ row[1] ^ 0x80000000);
    rows.push_back(row);
  }
  return rows;
}
std::vector<Values> double_rows(std::size_t count) {
  std::vector<Values> rows =
      with_random(tuples(kDoubles, std::min<std::size_t>(count, 2)), 0, count);
  std::mt19937_64 random(4);
  for (Values& row : rows) {
    while (row.size() < count) row.push_back(kDoubles[random() % kDoubles.size()]);
  }
  for (int i = 0; i < 400; ++i) {
    Values row;
    for (std::size_t k = 0; k < count; ++k) {
      row.push_back((random() & 0x800fffffffffffff) | (0x3f0 + random() % 0x20) << 52);
    }
    rows.push_back(row);
  }
  return rows;
}

/// An operation on floats as the host computes it in its rounding mode.
using FloatFunction = std::function<float(const volatile float*)>;

std::vector<std::string> registers(const std::string& type, std::size_t count) {
  return std::vector<std::string>(count, type);
}

void check_float(const std::string& opcode, std::size_t count, const std::string& mode,
                 const FloatFunction& f) {
  const bool flushes = opcode.find(".ftz") != opcode.npos;
  const bool saturates = opcode.find(".sat") != opcode.npos;
  check_rows({opcode, "b32", registers("b32", count)}, float_rows(count), [&](const Values& in) {
    volatile float a[3] = {};
    for (std::size_t i = 0; i < count; ++i) {
      a[i] = flushes ? flushed(float_of(in[i])) : float_of(in[i]);
    }
    float result = 0.0f;
    {
      const HostRounding host(mode);
      result = f(a);
    }
    if (flushes) result = flushed(result);
    return bits_of_float(saturates ? clamped(result) : result);
  });
}

void test_f32() {
  struct Case {
    const char* root;
    std::size_t count;
    bool saturates;
    FloatFunction f;
  };
  const Case cases[] = {
      {"add", 2, true, [](const volatile float* a) { return a[0] + a[1]; }},
      {"sub", 2, true, [](const volatile float* a) { return a[0] - a[1]; }},
      {"mul", 2, true, [](const volatile float* a) { return a[0] * a[1]; }},
      {"fma", 3, true, [](const volatile float* a) { return std::fma(a[0], a[1], a[2]); }},
      {"mad", 3, true, [](const volatile float* a) { return std::fma(a[0], a[1], a[2]); }},
      {"div", 2, false, [](const volatile float* a) { return a[0] / a[1]; }},
      {"rcp", 1, false, [](const volatile float* a) { return 1.0f / a[0]; }},
      {"sqrt", 1, false, [](const volatile float* a) { return std::sqrt(a[0]); }},
  };
  for (const Case& c : cases) {
    for (const std::string mode : {"rn", "rz", "rm", "rp"}) {
      const std::string opcode = std::string(c.root) + "." + mode;
      check_float(opcode + ".f32", c.count, mode, c.f);
      check_float(opcode + ".ftz.f32", c.count, mode, c.f);
      if (c.saturates) check_float(opcode + ".sat.f32", c.count, mode, c.f);
      if (c.saturates) check_float(opcode + ".ftz.sat.f32", c.count, mode, c.f);
    }
  }
  for (const Case& c : {cases[0], cases[1], cases[2]}) {
    check_float(std::string(c.root) + ".f32", 2, "rn", c.f);
    check_float(std::string(c.root) + ".ftz.f32", 2, "rn", c.f);
  }
  // Exact here although the manual allows an error.
  for (const std::string modifier : {"approx", "full", "approx.ftz", "full.ftz"}) {
    check_float("div." + modifier + ".f32", 2, "rn", cases[5].f);
  }
  for (const std::string modifier : {"approx", "approx.ftz"}) {
    check_float("rcp." + modifier + ".f32", 1, "rn", cases[6].f);
    check_float("sqrt." + modifier + ".f32", 1, "rn", cases[7].f);
  }
}

void test_f64() {
  struct Case {
    std::vector<const char*> opcodes;
    std::size_t count;
    std::function<double(double, double, double)> f;
  };
  const Case cases[] = {
      {{"add.f64", "add.rn.f64"}, 2, [](double a, double b, double) { return a + b; }},
      {{"sub.f64", "sub.rn.f64"}, 2, [](double a, double b, double) { return a - b; }},
      {{"mul.f64", "mul.rn.f64"}, 2, [](double a, double b, double) { return a * b; }},
      {{"div.rn.f64"}, 2, [](double a, double b, double) { return a / b; }},
      {{"fma.rn.f64", "mad.rn.f64"},
       3,
       [](double a, double b, double c) { return std::fma(a, b, c); }},
      {{"rcp.rn.f64"}, 1, [](double a, double, double) { return 1.0 / a; }},
      {{"sqrt.rn.f64"}, 1, [](double a, double, double) { return std::sqrt(a); }},
      {{"abs.f64"}, 1, [](double a, double, double) { return std::fabs(a); }},
      {{"neg.f64"}, 1, [](double a, double, double) { return -a; }},
      {{"copysign.f64"}, 2, [](double a, double b, double) { return std::copysign(b, a); }},
  };
  for (const Case& c : cases) {
    for (const std::string opcode : c.opcodes) {
      const auto rows = double_rows(c.count);
      const Values results = run_rows({opcode, "b64", registers("b64", c.count)}, rows);
      for (std::size_t i = 0; i < rows.size(); ++i) {
        Values in = rows[i];
        in.resize(3);
        const double wanted = c.f(double_of(in[0]), double_of(in[1]), double_of(in[2]));
        const bool both_nan = wanted != wanted && double_of(results[i]) != double_of(results[i]);
        CHECK(both_nan || results[i] == std::bit_cast<u64>(wanted), opcode, hex(in[0]), hex(in[1]));
      }
    }
  }
}

/// -0 is below +0; a NaN and a number give the number.
template <class T>
T extreme(T a, T b, bool is_max) {
  if (std::isnan(a)) return b;
  if (std::isnan(b)) return a;
  if (a == b) return std::signbit(a) == is_max ? b : a;
  return (a < b) == is_max ? b : a;
}

void test_min_max() {
  for (const bool is_max : {false, true}) {
    const std::string root = is_max ? "max" : "min";
    for (const bool flushes : {false, true}) {
      for (const bool keeps_nan : {false, true}) {
        for (const bool takes_sign : {false, true}) {
          const std::string opcode = root + (flushes ? ".ftz" : "") + (keeps_nan ? ".NaN" : "") +
                                     (takes_sign ? ".xorsign.abs" : "") + ".f32";
          check_rows({opcode, "b32", {"b32", "b32"}}, float_rows(2), [&](const Values& in) {
            float a = flushes ? flushed(float_of(in[0])) : float_of(in[0]);
            float b = flushes ? flushed(float_of(in[1])) : float_of(in[1]);
            if (std::isnan(a) && std::isnan(b)) return u64{0x7fffffff};
            if (keeps_nan && (std::isnan(a) || std::isnan(b))) return u64{0x7fffffff};
            const bool is_negative = std::signbit(a) != std::signbit(b);
            if (!takes_sign) return bits_of_float(extreme(a, b, is_max));
            const float size = extreme(std::fabs(a), std::fabs(b), is_max);
            return bits_of_float(is_negative ? -size : size);
          });
        }
      }
    }
    check_rows({root + ".f64", "b64", {"b64", "b64"}}, double_rows(2), [&](const Values& in) {
      return std::bit_cast<u64>(extreme(double_of(in[0]), double_of(in[1]), is_max));
    });
  }
}

void test_signs() {
  const auto not_nan = [] {
    std::vector<Values> rows;
    for (const Values& row : float_rows(1)) {
      if (!std::isnan(float_of(row[0]))) rows.push_back(row);
    }
    return rows;
  }();
  const auto tiny = [](u64 bits) { return (bits & 0x7f800000) == 0 ? bits & 0x80000000 : bits; };
  check_rows({"abs.f32", "b32", {"b32"}}, not_nan,
             [](const Values& in) { return in[0] & 0x7fffffff; });
  check_rows({"abs.ftz.f32", "b32", {"b32"}}, not_nan,
             [&](const Values& in) { return tiny(in[0]) & 0x7fffffff; });
  check_rows({"neg.f32", "b32", {"b32"}}, not_nan,
             [](const Values& in) { return in[0] ^ 0x80000000; });
  check_rows({"neg.ftz.f32", "b32", {"b32"}}, not_nan,
             [&](const Values& in) { return tiny(in[0]) ^ 0x80000000; });
  check_rows({"copysign.f32", "b32", {"b32", "b32"}}, float_rows(2),
             [](const Values& in) { return (in[0] & 0x80000000) | (in[1] & 0x7fffffff); });
}

void test_testp() {
  struct Case {
    const char* name;
    std::function<bool(double, double)> f;  // Takes the value, and the smallest normal number.
  };
  const Case cases[] = {
      {"finite", [](double x, double) { return std::isfinite(x); }},
      {"infinite", [](double x, double) { return std::isinf(x); }},
      {"number", [](double x, double) { return !std::isnan(x); }},
      {"notanumber", [](double x, double) { return std::isnan(x); }},
      {"normal", [](double x, double least) { return std::isfinite(x) && std::fabs(x) >= least; }},
      {"subnormal", [](double x, double least) { return x != 0.0 && std::fabs(x) < least; }},
  };
  for (const Case& c : cases) {
    check_rows({std::string("testp.") + c.name + ".f32", "pred", {"b32"}}, float_rows(1),
               [&](const Values& in) { return u64{c.f(float_of(in[0]), 0x1p-126)}; });
    check_rows({std::string("testp.") + c.name + ".f64", "pred", {"b64"}}, double_rows(1),
               [&](const Values& in) { return u64{c.f(double_of(in[0]), 0x1p-1022)}; });
  }
}

/// A result may be a float next to the nearest one; NaN, infinities and zeros are exact.
void check_function(const std::string& opcode, const std::vector<Values>& rows,
                    double (*exact)(double)) {
  const bool flushes = opcode.find(".ftz") != opcode.npos;
  const Values results = run_rows({opcode, "b32", {"b32"}}, rows);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const float x = flushes ? flushed(float_of(rows[i][0])) : float_of(rows[i][0]);
    const float nearest = static_cast<float>(exact(double{x}));
    const float wanted = flushes ? flushed(nearest) : nearest;
    const float result = float_of(results[i]);
    if (std::isnan(wanted)) {
      CHECK(results[i] == 0x7fffffff, opcode, x, hex(results[i]));
    } else if (wanted == 0.0f || std::isinf(wanted)) {
      CHECK(result == wanted && std::signbit(result) == std::signbit(wanted), opcode, x, result);
    } else {
      const bool is_close =
          result >= std::nextafter(wanted, -INFINITY) && result <= std::nextafter(wanted, INFINITY);
      CHECK(is_close || (flushes && result == 0.0f && std::fabs(wanted) == 0x1p-126f), opcode, x,
            result, wanted);
    }
  }
}

void test_functions() {
  std::vector<Values> rows = float_rows(1);
  for (int i = -1600; i <= 1600; ++i) {
    rows.push_back({std::bit_cast<u32>(static_cast<float>(i) / 10.0f)});
  }
  for (const std::string ftz : {"", ".ftz"}) {
    check_function("ex2.approx" + ftz + ".f32", rows, [](double x) { return std::exp2(x); });
    check_function("lg2.approx" + ftz + ".f32", rows, [](double x) { return std::log2(x); });
    check_function("sin.approx" + ftz + ".f32", rows, [](double x) { return std::sin(x); });
    check_function("cos.approx" + ftz + ".f32", rows, [](double x) { return std::cos(x); });
    check_function("rsqrt.approx" + ftz + ".f32", rows,
                   [](double x) { return 1.0 / std::sqrt(x); });
  }
  check_function("tanh.approx.f32", rows, [](double x) { return std::tanh(x); });
  const auto doubles = double_rows(1);
  const Values roots = run_rows({"rsqrt.approx.f64", "b64", {"b64"}}, doubles);
  for (std::size_t i = 0; i < doubles.size(); ++i) {
    const double wanted = 1.0 / std::sqrt(double_of(doubles[i][0]));
    const bool both_nan = std::isnan(wanted) && std::isnan(double_of(roots[i]));
    CHECK(both_nan || double_of(roots[i]) == wanted, hex(doubles[i][0]));
  }
}

}  // namespace

int main() {
  test_f32();
  test_f64();
  test_min_max();
  test_signs();
  test_testp();
  test_functions();
  CHECK_FORMS_OF("9.7.3.", "add", "sub", "mul", "fma", "mad", "div", "abs", "neg", "min", "max",
                 "rcp", "sqrt", "rsqrt", "sin", "cos", "lg2", "ex2", "tanh", "copysign", "testp");
  return finish();
}
