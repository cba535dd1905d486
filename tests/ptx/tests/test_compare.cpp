// Comparison and selection: every operator on every type, with NaN, and the logic of predicates.
// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cmath>

#include "elementwise_test.h"

using namespace ptxsim;
using namespace ptxsim::test;

namespace {

/// Less, equal, greater, unordered, as bits.
enum Order : unsigned { kLess = 1, kEqual = 2, kGreater = 4, kUnordered = 8 };

struct Operator {
  const char* name;
  unsigned orders;
};
const Operator kOperators[] = {{"eq", kEqual},   {"ne", kLess | kGreater},
                               {"lt", kLess},    {"le", kLess | kEqual},
                               {"gt", kGreater}, {"ge", kGreater | kEqual}};
const Operator kUnsignedOperators[] = {
    {"lo", kLess}, {"ls", kLess | kEqual}, {"hi", kGreater}, {"hs", kGreater | kEqual}};
const Operator kFloatOperators[] = {
    {"equ", kEqual | kUnordered},       {"neu", kLess | kGreater | kUnordered},
    {"ltu", kLess | kUnordered},        {"leu", kLess | kEqual | kUnordered},
    {"gtu", kGreater | kUnordered},     {"geu", kGreater | kEqual | kUnordered},
    {"num", kLess | kEqual | kGreater}, {"nan", kUnordered}};

unsigned order(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return kUnordered;
  return a < b ? kLess : a > b ? kGreater : kEqual;
}
unsigned order_of_integers(const std::string& type, u64 a, u64 b) {
  if (type[0] == 's') {
    const int unused = 64 - 8 * bytes_of_type(type);
    const s64 x = static_cast<s64>(a << unused);
    const s64 y = static_cast<s64>(b << unused);
    return x < y ? kLess : x > y ? kGreater : kEqual;
  }
  return a < b ? kLess : a > b ? kGreater : kEqual;
}

struct Floats {
  std::string type;
  Values values;
  std::function<double(u64)> value;
};

double half_value(u64 bits, int mantissa, int bias) {
  const int exponent = static_cast<int>((bits & 0x7fff) >> mantissa);
  const double fraction = static_cast<double>(bits & ((1u << mantissa) - 1));
  const double one = std::ldexp(1.0, mantissa);
  const int greatest = (1 << (15 - mantissa)) - 1;
  double value = exponent == 0 ? std::ldexp(fraction, 1 - bias - mantissa)
                               : std::ldexp(one + fraction, exponent - bias - mantissa);
  if (exponent == greatest) value = fraction == 0 ? INFINITY : NAN;
  return (bits & 0x8000) != 0 ? -value : value;
}

const Floats kFloats[] = {
    {"f32",
     {0, 0x80000000, 1, 0x80000001, 0x3f800000, 0xbf800000, 0x7f7fffff, 0x7f800000, 0xff800000,
      0x7fc00000, 0xffffffff},
     [](u64 bits) { return double{std::bit_cast<float>(static_cast<u32>(bits))}; }},
    {"f64",
     {0, u64{1} << 63, 1, 0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000,
      0xfff0000000000000, 0x7ff8000000000000},
     [](u64 bits) { return std::bit_cast<double>(bits); }},
    {"f16",
     {0, 0x8000, 1, 0x8001, 0x3c00, 0xbc00, 0x7bff, 0x7c00, 0xfc00, 0x7e00},
     [](u64 bits) { return half_value(bits, 10, 15); }},
    {"bf16",
     {0, 0x8000, 1, 0x8001, 0x3f80, 0xbf80, 0x7f7f, 0x7f80, 0xff80, 0x7fc0},
     [](u64 bits) { return half_value(bits, 7, 127); }},
};

std::string bits_type(const std::string& type) { return untyped(8 * bytes_of_type(type)); }

void check_integer_setp(const Operator& op, const std::string& type) {
  const std::string bits = bits_type(type);
  check_rows({std::string("setp.") + op.name + "." + type, "pred", {bits, bits}},
             with_random(tuples(kSpecialIntegers, 2), 32, 2), [&](const Values& in) {
               return u64{(order_of_integers(type, in[0], in[1]) & op.orders) != 0};
             });
}

void test_integers() {
  for (const std::string size : {"16", "32", "64"}) {
    for (const Operator& op : kOperators) {
      check_integer_setp(op, "s" + size);
      check_integer_setp(op, "u" + size);
    }
    for (const Operator& op : kUnsignedOperators) check_integer_setp(op, "u" + size);
    check_integer_setp(kOperators[0], "b" + size);
    check_integer_setp(kOperators[1], "b" + size);
  }
}

void check_float_setp(const Operator& op, const Floats& floats) {
  const std::string bits = bits_type(floats.type);
  check_rows({std::string("setp.") + op.name + "." + floats.type, "pred", {bits, bits}},
             tuples(floats.values, 2), [&](const Values& in) {
               return u64{(order(floats.value(in[0]), floats.value(in[1])) & op.orders) != 0};
             });
}

void test_floats() {
  for (const Floats& floats : kFloats) {
    for (const Operator& op : kOperators) check_float_setp(op, floats);
    for (const Operator& op : kFloatOperators) check_float_setp(op, floats);
  }
  // Where subnormals are flushed, they compare as zeros.
  const auto flushed = [](u64 bits) {
    return (bits & 0x7f800000) == 0 ? 0.0 : kFloats[0].value(bits);
  };
  check_rows({"setp.lt.ftz.f32", "pred", {"b32", "b32"}}, tuples(kFloats[0].values, 2),
             [&](const Values& in) { return u64{order(flushed(in[0]), flushed(in[1])) == kLess}; });
}

/// p|q, and the third predicate.
void test_combinations() {
  const std::string load =
      ".reg .pred %p, %q, %c;\n.reg .b64 %x;\nmov.b64 %x, 0;\nsetp.ne.u64 %c, %in1, 0;\n";
  const std::string store = "selp.b64 %out0, 1, 0, %p;\nselp.b64 %out1, 1, 0, %q;\n";
  const std::vector<Values> inputs = {{0, 1, 0, 1}, {0, 0, 1, 1}};
  struct Case {
    const char* name;
    std::function<bool(bool, bool)> f;
  };
  const Case cases[] = {{"and", [](bool a, bool b) { return a && b; }},
                        {"or", [](bool a, bool b) { return a || b; }},
                        {"xor", [](bool a, bool b) { return a != b; }}};
  for (const Case& c : cases) {
    for (const bool is_negated : {false, true}) {
      const std::string third = is_negated ? "!%c" : "%c";
      const auto out = run_ptx(
          {.body = load + "setp.eq." + c.name + ".u64 %p|%q, %in0, 1, " + third + ";\n" + store,
           .inputs = inputs,
           .num_outputs = 2,
           .block = {4}});
      for (std::size_t i = 0; i < 4; ++i) {
        const bool with = (inputs[1][i] != 0) != is_negated;
        CHECK(out[0][i] == u64{c.f(inputs[0][i] == 1, with)}, c.name, i);
        CHECK(out[1][i] == u64{c.f(inputs[0][i] != 1, with)}, c.name, i);
      }
    }
  }
  const auto out = run_ptx({.body = load + "setp.eq.u64 %p|%q, %in0, 1;\n" + store,
                            .inputs = inputs,
                            .num_outputs = 2,
                            .block = {4}});
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(out[0][i] == inputs[0][i] && out[1][i] == 1 - inputs[0][i]);
}

/// Lanes that do not execute it keep their predicate.
void test_guarded() {
  const auto out = run_ptx({.body = ".reg .pred %p, %g;\nsetp.eq.u64 %p, 0, 0;\n"
                                    "setp.ne.u64 %g, %in0, 0;\n@%g setp.eq.u64 %p, 0, 1;\n"
                                    "selp.b64 %out0, 1, 0, %p;\n",
                            .inputs = {{0, 1, 0, 1}},
                            .block = {4}});
  CHECK(out[0] == Values({1, 0, 1, 0}));
}

void check_set(const Operator& op, const std::string& type, const std::string& modifiers,
               const Values& values, const std::function<unsigned(u64, u64)>& order_of) {
  const std::string bits = bits_type(type);
  for (const std::string to : {"u32", "s32", "f32"}) {
    const std::string opcode = std::string("set.") + op.name + modifiers + "." + to + "." + type;
    check_rows({opcode, "b32", {bits, bits}}, tuples(values, 2), [&](const Values& in) {
      const bool holds = (order_of(in[0], in[1]) & op.orders) != 0;
      return !holds ? u64{0} : to == "f32" ? u64{0x3f800000} : u64{0xffffffff};
    });
  }
}

void test_set() {
  for (const std::string type : {"b32", "s64", "u16"}) {
    check_set(kOperators[0], type, "", kSpecialIntegers,
              [&](u64 a, u64 b) { return order_of_integers(type, a, b); });
  }
  check_set(kOperators[2], "s32", "", kSpecialIntegers,
            [](u64 a, u64 b) { return order_of_integers("s32", a, b); });
  check_set(kFloatOperators[2], "f32", "", kFloats[0].values,
            [](u64 a, u64 b) { return order(kFloats[0].value(a), kFloats[0].value(b)); });
}

void test_selection() {
  for (const std::string type : {"b16", "b32", "b64", "u16", "s32", "f32", "f64"}) {
    const std::string bits = bits_type(type);
    check_rows({"selp." + type, bits, {bits, bits, "pred"}}, with_random({}, 64, 3),
               [](const Values& in) { return in[2] != 0 ? in[0] : in[1]; });
    check_rows({"selp." + type, bits, {bits, bits, "pred"}, "%d, %a, %b, !%c"},
               {{1, 2, 0}, {1, 2, 1}}, [](const Values& in) { return in[2] == 0 ? in[0] : in[1]; });
    check_rows({"slct." + type + ".s32", bits, {bits, bits, "b32"}}, with_random({}, 64, 3),
               [](const Values& in) { return in[2] < 0x80000000 ? in[0] : in[1]; });
  }
  const std::vector<Values> rows = {{1, 2, 0},          {1, 2, 0x80000000}, {1, 2, 0x3f800000},
                                    {1, 2, 0xbf800000}, {1, 2, 0x7fc00000}, {1, 2, 0x80000001}};
  const auto expected = [](bool flushes) {
    return [flushes](const Values& in) {
      const bool is_tiny = (in[2] & 0x7f800000) == 0;
      const double c = flushes && is_tiny ? 0.0 : kFloats[0].value(in[2]);
      return c >= 0.0 ? in[0] : in[1];
    };
  };
  check_rows({"slct.b32.f32", "b32", {"b32", "b32", "b32"}}, rows, expected(false));
  check_rows({"slct.ftz.b32.f32", "b32", {"b32", "b32", "b32"}}, rows, expected(true));
}

}  // namespace

int main() {
  test_integers();
  test_floats();
  test_combinations();
  test_guarded();
  test_set();
  test_selection();
  CHECK_FORMS("setp", "set", "selp", "slct");
  return finish();
}
