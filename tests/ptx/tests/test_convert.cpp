// cvt: every pair of types, rounding modes, saturation; registers wider than their type.
// SPDX-License-Identifier: Apache-2.0
#include "elementwise_test.h"
#include "float_reference.h"

using namespace ptxsim;
using namespace ptxsim::test;

namespace {

using Wide = __int128;

const char* const kIntegerTypes[] = {"u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64"};
const std::string kModes[] = {"rn", "rz", "rm", "rp"};

int bits_of(const std::string& type) { return 8 * bytes_of_type(type); }
/// The narrowest register that holds the type.
std::string register_of(const std::string& type) { return untyped(std::max(bits_of(type), 16)); }
Wide value(const std::string& type, u64 bits) {
  const u64 low = cut(untyped(bits_of(type)), bits);
  const bool is_negative = type[0] == 's' && ((low >> (bits_of(type) - 1)) & 1) != 0;
  return is_negative ? Wide{low} - (Wide{1} << bits_of(type)) : Wide{low};
}
Wide least(const std::string& type) {
  return type[0] == 's' ? -(Wide{1} << (bits_of(type) - 1)) : Wide{0};
}
Wide greatest(const std::string& type) {
  return (Wide{1} << (bits_of(type) - (type[0] == 's' ? 1 : 0))) - 1;
}

const Values kIntegers = {0,
                          1,
                          0x7f,
                          0x80,
                          0xff,
                          0x100,
                          0x7fff,
                          0x8000,
                          0xffff,
                          0x10000,
                          0x7fffffff,
                          0x80000000,
                          0xffffffff,
                          0x1000001,
                          0x1000003,
                          0xff7fffff,
                          0xfefffffd,
                          u64{1} << 32,
                          u64{1} << 53,
                          (u64{1} << 53) + 1,
                          ~u64{0} >> 1,
                          u64{1} << 63,
                          ~u64{0},
                          65519,
                          65520,
                          0xfffffe8000000000};

void test_integers() {
  for (const std::string to : kIntegerTypes) {
    for (const std::string from : kIntegerTypes) {
      const auto rows = with_random(tuples(kIntegers, 1), 32, 1);
      check_rows({"cvt." + to + "." + from, register_of(to), {register_of(from)}}, rows,
                 [&](const Values& in) {
                   // A register wider than the type holds the value extended.
                   return static_cast<u64>(value(to, static_cast<u64>(value(from, in[0]))));
                 });
      check_rows({"cvt.sat." + to + "." + from, register_of(to), {register_of(from)}}, rows,
                 [&](const Values& in) {
                   return static_cast<u64>(std::clamp(value(from, in[0]), least(to), greatest(to)));
                 });
    }
  }
}

void test_wide_registers() {
  for (const std::string to : {"u8", "s8", "u16", "s16"}) {
    for (const std::string from : {"u8", "s8", "u16", "s16"}) {
      check_rows({"cvt." + to + "." + from, "b64", {"b32"}}, with_random({}, 64, 1),
                 [&](const Values& in) {
                   return static_cast<u64>(value(to, static_cast<u64>(value(from, in[0]))));
                 });
    }
  }
  CHECK_ERROR(run_ptx({.body = ".reg .b16 %h;\n.reg .b32 %r;\ncvt.u32.u32 %h, %r;"}), "16 bits");
}

// ---- From and to floats ------------------------------------------------------------------------

struct FloatType {
  std::string name;
  std::function<double(u64)> value;
  Values special;
};
const FloatType kFloats[] = {
    {"f16",
     [](u64 bits) { return value_of(kF16, bits); },
     {0, 0x8000, 1, 0x8001, 0x3ff, 0x400, 0x3800, 0x3c00, 0xbc00, 0x3e00, 0xbe00, 0x4100, 0xc100,
      0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00, 0xfe01}},
    {"bf16",
     [](u64 bits) { return value_of(kBf16, bits); },
     {0, 0x8000, 1, 0x8001, 0x7f, 0x80, 0x3f00, 0x3f80, 0xbf80, 0x3fc0, 0xbfc0, 0x4020, 0xc020,
      0x7f7f, 0xff7f, 0x7f80, 0xff80, 0x7fc0, 0xffc1}},
    {"f32",
     [](u64 bits) { return double{float_of(bits)}; },
     {0,          0x80000000, 1,          0x80000001, 0x7fffff,   0x800000,
      0x3f000000, 0x3f800000, 0xbf800000, 0x3fc00000, 0xbfc00000, 0x40200000,
      0xc0200000, 0x477fefff, 0x477ff000, 0x477fe000, 0x387fc000, 0x33000000,
      0x33000001, 0x4f000000, 0x4effffff, 0xcf000000, 0x5f000000, 0x7f7fffff,
      0x7f7f8000, 0x7f800000, 0xff800000, 0x7fc00000, 0xff800001}},
    {"f64",
     [](u64 bits) { return double_of(bits); },
     {0,
      u64{1} << 63,
      1,
      0x3fe0000000000000,
      0x3ff0000000000000,
      0xbff0000000000000,
      0x3ff8000000000000,
      0x4004000000000000,
      0x41e0000000000000,
      0x43e0000000000000,
      0x47efffffe0000000,
      0x47effffff0000000,
      0x36a0000000000000,
      0x3690000000000001,
      0x3810000000000000,
      0x40effe0000000000,
      0x40effdffffffffff,
      0x7ff0000000000000,
      0xfff0000000000000,
      0x7ff8000000000000}},
};

std::vector<Values> float_rows(const FloatType& type) {
  std::vector<Values> rows = with_random(tuples(type.special, 1), 256, 1);
  // Random bits are mostly huge or tiny numbers, so some moderate ones are added.
  std::mt19937_64 random(2);
  for (int i = 0; i < 256; ++i) {
    const double x =
        std::ldexp(static_cast<double>(random() >> 11), -40 - i % 40) * (i % 2 == 0 ? 1.0 : -1.0);
    if (type.name == "f64") rows.push_back({std::bit_cast<u64>(x)});
    if (type.name == "f32") rows.push_back({std::bit_cast<u32>(static_cast<float>(x))});
  }
  return rows;
}

double integral(double x, const std::string& mode) {
  if (mode == "rz") return std::trunc(x);
  if (mode == "rm") return std::floor(x);
  if (mode == "rp") return std::ceil(x);
  const double below = std::floor(x);
  if (x - below != 0.5) return std::floor(x + 0.5) - (x + 0.5 < x ? 1.0 : 0.0);
  return std::fmod(below, 2.0) == 0.0 ? below : below + 1.0;
}
/// Keeps the sign of what is rounded, and is exact for large numbers.
double integral_value(double x, const std::string& mode) {
  if (!(std::fabs(x) < 0x1p52)) return x;
  return std::copysign(integral(x, mode), x);
}

void test_to_integers() {
  for (const FloatType& from : kFloats) {
    for (const std::string to : kIntegerTypes) {
      for (const std::string& mode : kModes) {
        check_rows({"cvt." + mode + "i." + to + "." + from.name,
                    register_of(to),
                    {register_of(from.name)}},
                   float_rows(from), [&](const Values& in) -> u64 {
                     const double x = from.value(in[0]);
                     if (std::isnan(x)) {
                       if (from.name != "f64" && bits_of(to) != 64) return 0;
                       return static_cast<u64>(value(to, u64{1} << (bits_of(to) - 1)));
                     }
                     const double r = integral_value(x, mode);
                     if (r <= static_cast<double>(least(to))) return static_cast<u64>(least(to));
                     if (r >= std::ldexp(1.0, bits_of(to) - (to[0] == 's' ? 1 : 0))) {
                       return static_cast<u64>(greatest(to));
                     }
                     return static_cast<u64>(static_cast<Wide>(r));
                   });
      }
    }
  }
  // Subnormals become zeros before they are rounded.
  check_rows({"cvt.rpi.ftz.s32.f32", "b32", {"b32"}}, {{1}, {0x3f000000}, {0x80000001}},
             [](const Values& in) { return u64{in[0] == 0x3f000000}; });
}

void test_to_integral_floats() {
  for (const FloatType& type : kFloats) {
    const std::string bits = register_of(type.name);
    for (const std::string& mode : kModes) {
      check_rows({"cvt." + mode + "i." + type.name + "." + type.name, bits, {bits}},
                 float_rows(type), [&](const Values& in) {
                   const double r = integral_value(type.value(in[0]), mode);
                   if (type.name == "f64") return std::bit_cast<u64>(r);
                   if (type.name == "f32") return bits_of_float(static_cast<float>(r));
                   return rounded_to(type.name == "f16" ? kF16 : kBf16, r, "rn");
                 });
    }
  }
}

u64 expected_float(const std::string& to, Quad exact, const std::string& mode) {
  if (to == "f16") return rounded_to(kF16, exact, mode);
  if (to == "bf16") return rounded_to(kBf16, exact, mode);
  // For 64-bit integers and doubles: the host's conversion from its 80 bits is exact except for
  // this rounding.
  const HostRounding host(mode);
  volatile long double x = static_cast<long double>(exact);
  if (to == "f64") return std::bit_cast<u64>(static_cast<double>(x));
  volatile float result = static_cast<float>(x);
  return bits_of_float(result);
}

void test_from_integers() {
  for (const std::string to : {"f16", "bf16", "f32", "f64"}) {
    for (const std::string from : kIntegerTypes) {
      for (const std::string& mode : kModes) {
        if (to == "f64" && mode != "rn") continue;
        const auto rows = with_random(tuples(kIntegers, 1), 64, 1);
        const Instructed plain{
            "cvt." + mode + "." + to + "." + from, register_of(to), {register_of(from)}};
        check_rows(plain, rows, [&](const Values& in) {
          return expected_float(to, static_cast<Quad>(value(from, in[0])), mode);
        });
      }
    }
  }
  check_rows(
      {"cvt.rn.sat.f32.s32", "b32", {"b32"}}, {{0}, {1}, {5}, {0xffffffff}},
      [](const Values& in) { return bits_of_float(in[0] == 1 || in[0] == 5 ? 1.0f : 0.0f); });
}

void check_floats(const std::string& opcode, const std::string& to, const FloatType& from,
                  const std::function<u64(double)>& expected) {
  check_rows({opcode + "." + to + "." + from.name, register_of(to), {register_of(from.name)}},
             float_rows(from), [&](const Values& in) { return expected(from.value(in[0])); });
}

void test_narrowing() {
  for (const std::string& mode : kModes) {
    for (const std::string to : {"f16", "bf16"}) {
      check_floats("cvt." + mode, to, kFloats[2],
                   [&](double x) { return expected_float(to, x, mode); });
      check_floats("cvt." + mode, to, kFloats[3],
                   [&](double x) { return expected_float(to, x, mode); });
    }
    check_floats("cvt." + mode, "f32", kFloats[3],
                 [&](double x) { return expected_float("f32", x, mode); });
  }
  check_floats("cvt.rn.ftz", "f32", kFloats[3], [](double x) {
    return bits_of_float(flushed(float_of(expected_float("f32", x, "rn"))));
  });
  check_floats("cvt.rn.sat", "f16", kFloats[2], [](double x) {
    return expected_float("f16", x > 0.0 ? std::fmin(x, 1.0) : 0.0, "rn");
  });
  for (const std::string to : {"f16", "bf16"}) {
    for (const std::string mode : {"rn", "rz"}) {
      check_floats("cvt." + mode + ".relu", to, kFloats[2], [&](double x) {
        return expected_float(to, std::isnan(x) ? x : x > 0.0 ? x : 0.0, mode);
      });
    }
  }
}

void test_widening() {
  for (const FloatType& from : kFloats) {
    if (from.name == "f64") continue;
    const auto rows = float_rows(from);
    const Values doubles =
        run_rows({"cvt.f64." + from.name, "b64", {register_of(from.name)}}, rows);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      // The manual leaves open which NaN it is.
      const double x = from.value(cut(register_of(from.name), rows[i][0]));
      const bool both_nan = std::isnan(x) && std::isnan(double_of(doubles[i]));
      CHECK(both_nan || doubles[i] == std::bit_cast<u64>(x), from.name, hex(rows[i][0]));
    }
    check_floats("cvt", "f32", from, [](double x) { return bits_of_float(static_cast<float>(x)); });
    check_floats("cvt.sat", "f32", from,
                 [](double x) { return bits_of_float(clamped(static_cast<float>(x))); });
  }
  check_floats("cvt.ftz", "f32", kFloats[2],
               [](double x) { return bits_of_float(flushed(static_cast<float>(x))); });
  check_floats("cvt.ftz", "f64", kFloats[2],
               [](double x) { return std::bit_cast<u64>(double{flushed(static_cast<float>(x))}); });
}

void test_pairs() {
  std::vector<Values> rows;
  for (const Values& a : float_rows(kFloats[2])) rows.push_back({a[0], a[0] ^ 0x80012345});
  for (const std::string to : {"f16", "bf16"}) {
    for (const std::string mode : {"rn", "rz"}) {
      for (const bool has_relu : {false, true}) {
        const std::string relu = has_relu ? ".relu" : "";
        check_rows({"cvt." + mode + relu + "." + to + "x2.f32", "b32", {"b32", "b32"}}, rows,
                   [&](const Values& in) {
                     const auto half = [&](u64 bits) {
                       const double x = float_of(bits);
                       const bool is_cut = has_relu && x <= 0.0;
                       return expected_float(to, is_cut ? 0.0 : x, mode);
                     };
                     return half(in[0]) << 16 | half(in[1]);
                   });
      }
    }
  }
}

/// tf32: 10 bits of mantissa at the place of a float's 23.
void test_tf32() {
  const auto rounded = [](u64 bits, const std::string& mode) -> u64 {
    const u64 magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return u64{0x3ffff} << 13;
    u64 kept = magnitude >> 13;
    const u64 rest = magnitude & 0x1fff;
    const bool is_up = mode == "rna"  ? rest >= 0x1000
                       : mode == "rn" ? rest > 0x1000 || (rest == 0x1000 && kept % 2 != 0)
                                      : false;
    kept += is_up && magnitude != 0x7f800000 ? 1 : 0;
    return (bits & 0x80000000) | kept << 13;
  };
  for (const std::string mode : {"rna", "rn", "rz"}) {
    check_rows({"cvt." + mode + ".tf32.f32", "b32", {"b32"}}, float_rows(kFloats[2]),
               [&](const Values& in) { return rounded(in[0], mode); });
  }
  check_rows({"cvt.rn.relu.tf32.f32", "b32", {"b32"}}, float_rows(kFloats[2]),
             [&](const Values& in) { return float_of(in[0]) <= 0.0f ? 0 : rounded(in[0], "rn"); });
}

/// Converts all 16-bit floats and back.
void test_round_trips() {
  for (const std::string type : {"f16", "bf16"}) {
    std::vector<Values> rows;
    for (u64 bits = 0; bits < 0x10000; ++bits) rows.push_back({bits});
    const HalfFormat format = type == "f16" ? kF16 : kBf16;
    check_rows({"cvt.f32." + type, "b32", {"b16"}}, rows, [&](const Values& in) {
      return bits_of_float(static_cast<float>(value_of(format, in[0])));
    });
  }
}

}  // namespace

int main() {
  test_integers();
  test_wide_registers();
  test_to_integers();
  test_to_integral_floats();
  test_from_integers();
  test_narrowing();
  test_widening();
  test_pairs();
  test_tf32();
  test_round_trips();
  CHECK_FORMS("cvt");
  return finish();
}
