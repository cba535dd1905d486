// Integer arithmetic: every instruction on every type, against 128-bit arithmetic.
// SPDX-License-Identifier: Apache-2.0
#include "elementwise_test.h"

using namespace ptxsim;
using namespace ptxsim::test;

namespace {

using Wide = __int128;

int bits_of(const std::string& type) { return 8 * bytes_of_type(type); }

/// The value of a register's low bits as a type.
Wide value(const std::string& type, u64 bits) {
  const u64 low = cut(type, bits);
  const int size = bits_of(type);
  const bool is_negative = type[0] == 's' && ((low >> (size - 1)) & 1) != 0;
  return is_negative ? Wide{low} - (Wide{1} << size) : Wide{low};
}
std::string bits_type(const std::string& type) { return untyped(bits_of(type)); }
std::string twice(const std::string& type) { return untyped(2 * bits_of(type)); }

std::vector<Values> rows_of(std::size_t count) {
  return with_random(tuples(kSpecialIntegers, count > 2 ? 2 : count), count > 2 ? 0 : 256, count);
}

using Binary = std::function<Wide(Wide, Wide)>;

void check_binary(const std::string& opcode, const std::string& type, const Binary& f) {
  const std::string bits = bits_type(type);
  check_rows({opcode + "." + type, bits, {bits, bits}}, rows_of(2), [&](const Values& in) {
    return static_cast<u64>(f(value(type, in[0]), value(type, in[1])));
  });
}

const char* const kTypes[] = {"u16", "u32", "u64", "s16", "s32", "s64"};

/// Signed 128 bits do not hold products of unsigned 64-bit integers, so the high half is computed
/// by hand.
Wide product_high(const std::string& type, Wide a, Wide b) {
  const int size = bits_of(type);
  if (size < 64 || type[0] == 's') return (a * b) >> size;
  return static_cast<Wide>(
      (static_cast<unsigned __int128>(a) * static_cast<unsigned __int128>(b)) >> 64);
}

Wide clamp_s32(Wide x) {
  const Wide least = -(Wide{1} << 31);
  return x < least ? least : x > -least - 1 ? -least - 1 : x;
}

void test_sums() {
  for (const std::string type : kTypes) {
    check_binary("add", type, [](Wide a, Wide b) { return a + b; });
    check_binary("sub", type, [](Wide a, Wide b) { return a - b; });
    check_binary("min", type, [](Wide a, Wide b) { return std::min(a, b); });
    check_binary("max", type, [](Wide a, Wide b) { return std::max(a, b); });
  }
  check_binary("add.sat", "s32", [](Wide a, Wide b) { return clamp_s32(a + b); });
  check_binary("sub.sat", "s32", [](Wide a, Wide b) { return clamp_s32(a - b); });
}

void test_pairs() {
  struct Case {
    const char* opcode;
    const char* half;
    Binary f;
  };
  const Case cases[] = {
      {"add.u16x2", "u16", [](Wide a, Wide b) { return a + b; }},
      {"add.s16x2", "s16", [](Wide a, Wide b) { return a + b; }},
      {"min.u16x2", "u16", [](Wide a, Wide b) { return std::min(a, b); }},
      {"min.s16x2", "s16", [](Wide a, Wide b) { return std::min(a, b); }},
      {"max.u16x2", "u16", [](Wide a, Wide b) { return std::max(a, b); }},
      {"max.s16x2", "s16", [](Wide a, Wide b) { return std::max(a, b); }},
  };
  for (const Case& c : cases) {
    check_rows({c.opcode, "b32", {"b32", "b32"}}, rows_of(2), [&](const Values& in) {
      const auto half = [&](int shift) {
        return static_cast<u64>(c.f(value(c.half, in[0] >> shift), value(c.half, in[1] >> shift))) &
               0xffff;
      };
      return half(16) << 16 | half(0);
    });
  }
}

void test_products() {
  for (const std::string type : kTypes) {
    const std::string bits = bits_type(type);
    check_binary("mul.lo", type, [](Wide a, Wide b) {
      return static_cast<Wide>(static_cast<unsigned __int128>(a) *
                               static_cast<unsigned __int128>(b));
    });
    check_binary("mul.hi", type, [&](Wide a, Wide b) { return product_high(type, a, b); });
    check_rows({"mad.lo." + type, bits, {bits, bits, bits}}, with_random({}, 600, 3),
               [&](const Values& in) { return in[0] * in[1] + in[2]; });
    check_rows(
        {"mad.hi." + type, bits, {bits, bits, bits}}, with_random({}, 600, 3),
        [&](const Values& in) {
          return static_cast<u64>(product_high(type, value(type, in[0]), value(type, in[1]))) +
                 in[2];
        });
    check_rows({"sad." + type, bits, {bits, bits, bits}}, with_random({}, 600, 3),
               [&](const Values& in) {
                 const Wide a = value(type, in[0]);
                 const Wide b = value(type, in[1]);
                 return in[2] + static_cast<u64>(a < b ? b - a : a - b);
               });
    if (bits_of(type) == 64) continue;
    check_rows({"mul.wide." + type, twice(type), {bits, bits}}, rows_of(2), [&](const Values& in) {
      return static_cast<u64>(value(type, in[0]) * value(type, in[1]));
    });
    check_rows({"mad.wide." + type, twice(type), {bits, bits, twice(type)}},
               with_random({}, 600, 3), [&](const Values& in) {
                 return static_cast<u64>(value(type, in[0]) * value(type, in[1])) + in[2];
               });
  }
  check_rows({"mad.hi.sat.s32", "b32", {"b32", "b32", "b32"}}, tuples(kSpecialIntegers, 3),
             [](const Values& in) {
               const Wide high = (value("s32", in[0]) * value("s32", in[1])) >> 32;
               return static_cast<u64>(clamp_s32(high + value("s32", in[2])));
             });
}

void test_24_bits() {
  for (const std::string type : {"u32", "s32"}) {
    const auto low24 = [&](u64 bits) {
      const Wide low = bits & 0xffffff;
      return type[0] == 's' && low >= 0x800000 ? low - 0x1000000 : low;
    };
    check_rows({"mul24.lo." + type, "b32", {"b32", "b32"}}, rows_of(2),
               [&](const Values& in) { return static_cast<u64>(low24(in[0]) * low24(in[1])); });
    check_rows({"mul24.hi." + type, "b32", {"b32", "b32"}}, rows_of(2), [&](const Values& in) {
      return static_cast<u64>((low24(in[0]) * low24(in[1])) >> 16);
    });
  }
}

void test_dp4a() {
  for (const std::string a : {"u32", "s32"}) {
    for (const std::string b : {"u32", "s32"}) {
      check_rows({"dp4a." + a + "." + b, "b32", {"b32", "b32", "b32"}}, tuples(kSpecialIntegers, 3),
                 [&](const Values& in) {
                   u64 sum = in[2];
                   for (int i = 0; i < 4; ++i) {
                     const Wide x = value(a[0] == 's' ? "s8" : "u8", in[0] >> (8 * i));
                     const Wide y = value(b[0] == 's' ? "s8" : "u8", in[1] >> (8 * i));
                     sum += static_cast<u64>(x * y);
                   }
                   return sum;
                 });
    }
  }
}

/// The manual leaves division by zero open.
std::vector<Values> divisions(const std::string& type) {
  std::vector<Values> rows;
  for (const Values& row : rows_of(2)) {
    if (cut(type, row[1]) != 0) rows.push_back(row);
  }
  return rows;
}

void test_quotients() {
  for (const std::string type : kTypes) {
    const std::string bits = bits_type(type);
    check_rows({"div." + type, bits, {bits, bits}}, divisions(type), [&](const Values& in) {
      return static_cast<u64>(value(type, in[0]) / value(type, in[1]));
    });
    check_rows({"rem." + type, bits, {bits, bits}}, divisions(type), [&](const Values& in) {
      return static_cast<u64>(value(type, in[0]) % value(type, in[1]));
    });
    if (type[0] != 's') continue;
    check_rows({"neg." + type, bits, {bits}}, rows_of(1),
               [&](const Values& in) { return static_cast<u64>(-value(type, in[0])); });
    check_rows({"abs." + type, bits, {bits}}, rows_of(1), [&](const Values& in) {
      const Wide a = value(type, in[0]);
      return static_cast<u64>(a < 0 ? -a : a);
    });
  }
}

/// Operates on two words of 32 or 64 bits each, by a low and then a high instruction.
void check_carry(const std::string& low, const std::string& high, int bits,
                 const std::function<unsigned __int128(unsigned __int128, unsigned __int128)>& f) {
  const std::string b = ".b" + std::to_string(bits);
  std::string body = ".reg " + b + " %x<4>, %y<2>;\n";
  for (int i = 0; i < 4; ++i) {
    const std::string n = std::to_string(i);
    body += narrowed(b.substr(1), "%x" + n, "%in" + n);
  }
  body += low + " %y0, %x0, %x2;\n" + high + " %y1, %x1, %x3;\n";
  const std::string widen = bits == 32 ? "cvt.u64.u32 " : "mov.b64 ";
  body += widen + "%out0, %y0;\n" + widen + "%out1, %y1;\n";
  std::vector<Values> rows = with_random(tuples({0, 1, ~u64{0}, u64{1} << (bits - 1)}, 4), 200, 4);
  Program program{.body = body, .inputs = std::vector<Values>(4), .num_outputs = 2};
  program.block.x = static_cast<u32>(rows.size());
  const std::string type = b.substr(1);
  for (const Values& row : rows) {
    for (std::size_t i = 0; i < 4; ++i) program.inputs[i].push_back(cut(type, row[i]));
  }
  const auto out = run_ptx(program);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto joined = [&](std::size_t at) {
      return static_cast<unsigned __int128>(program.inputs[at + 1][i]) << bits |
             program.inputs[at][i];
    };
    const unsigned __int128 expected = f(joined(0), joined(2));
    CHECK(out[0][i] == cut(type, static_cast<u64>(expected)), low, i);
    CHECK(out[1][i] == cut(type, static_cast<u64>(expected >> bits)), high, i);
  }
}

void test_carries() {
  using Unsigned = unsigned __int128;
  const auto sum = [](Unsigned a, Unsigned b) { return a + b; };
  const auto difference = [](Unsigned a, Unsigned b) { return a - b; };
  for (const std::string type : {"u32", "s32", "u64", "s64"}) {
    const int bits = bits_of(type);
    check_carry("add.cc." + type, "addc." + type, bits, sum);
    check_carry("add.cc." + type, "addc.cc." + type, bits, sum);
    check_carry("sub.cc." + type, "subc." + type, bits, difference);
    check_carry("sub.cc." + type, "subc.cc." + type, bits, difference);
  }
  // addc.cc passes a carry on.
  const auto out = run_ptx({.body = ".reg .b32 %x, %y, %z;\n"
                                    "add.cc.u32 %x, 0xffffffff, 1;\n"
                                    "addc.cc.u32 %y, 0xffffffff, 0;\n"
                                    "addc.u32 %z, 0, 0;\n"
                                    "cvt.u64.u32 %out0, %y;\ncvt.u64.u32 %out1, %z;\n",
                            .num_outputs = 2});
  CHECK(out[0][0] == 0 && out[1][0] == 1, out[0][0], out[1][0]);
}

/// 64 x 64 bits to 128, as the compiler writes it: a chain of mad.
void test_mad_carries() {
  const std::string body =
      ".reg .b32 %a<2>, %b<2>, %r<4>;\n"
      "mov.b64 {%a0, %a1}, %in0;\nmov.b64 {%b0, %b1}, %in1;\n"
      "mul.lo.u32 %r0, %a0, %b0;\nmul.hi.u32 %r1, %a0, %b0;\n"
      "mad.lo.cc.u32 %r1, %a1, %b0, %r1;\nmadc.hi.u32 %r2, %a1, %b0, 0;\n"
      "mad.lo.cc.u32 %r1, %a0, %b1, %r1;\nmadc.hi.cc.u32 %r2, %a0, %b1, %r2;\n"
      "addc.u32 %r3, 0, 0;\n"
      "mad.lo.cc.u32 %r2, %a1, %b1, %r2;\nmadc.hi.u32 %r3, %a1, %b1, %r3;\n"
      "mov.b64 %out0, {%r0, %r1};\nmov.b64 %out1, {%r2, %r3};\n";
  const std::vector<Values> rows = rows_of(2);
  Program program{.body = body, .inputs = std::vector<Values>(2), .num_outputs = 2};
  program.block.x = static_cast<u32>(rows.size());
  for (const Values& row : rows) {
    program.inputs[0].push_back(row[0]);
    program.inputs[1].push_back(row[1]);
  }
  const auto out = run_ptx(program);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const unsigned __int128 expected = static_cast<unsigned __int128>(rows[i][0]) * rows[i][1];
    CHECK(out[0][i] == static_cast<u64>(expected), hex(rows[i][0]), hex(rows[i][1]));
    CHECK(out[1][i] == static_cast<u64>(expected >> 64), hex(rows[i][0]), hex(rows[i][1]));
  }
}

void test_operands() {
  const auto run = [](const std::string& body) {
    return error_of(
        [&] { run_ptx({.body = ".reg .b32 %r<4>;\n.reg .b16 %h;\n" + body, .num_outputs = 0}); });
  };
  CHECK(run("add.s32 %r0, 1, -1;").empty());
  CHECK_ERROR(run_ptx({.body = ".reg .b32 %r;\nadd.s32 %r, 1;"}), "add.s32 %r, 1", "3 operands");
  CHECK(contains(run("add.s32 %r0, %h, 1;"), {"16 bits", "expected 32 bits"}));
  CHECK(contains(run("add.s32 %h, 1, 1;"), {"the result has 16 bits"}));
  CHECK(contains(run("add.s32 %r0, 1, 0x100000000;"), {"does not fit"}));
  CHECK(contains(run("add.s32 5, 1, 1;"), {"the result is no register"}));
  CHECK(contains(run("add.s32 %r0, !%r1, 1;"), {"'!'"}));
}

}  // namespace

int main() {
  test_sums();
  test_pairs();
  test_products();
  test_24_bits();
  test_dp4a();
  test_quotients();
  test_carries();
  test_mad_carries();
  test_operands();
  CHECK_FORMS_OF("9.7.1.", "add", "sub", "mul", "mad", "mul24", "sad", "div", "rem", "abs", "neg",
                 "min", "max", "dp4a");
  CHECK_FORMS_OF("9.7.2.", "add", "addc", "sub", "subc", "mad", "madc");
  return finish();
}
