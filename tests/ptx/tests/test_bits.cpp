// Bit operations on integers, logic and shifts, computed bit by bit.
// SPDX-License-Identifier: Apache-2.0
#include "elementwise_test.h"

using namespace ptxsim;
using namespace ptxsim::test;

namespace {

const Values kSpecial = {0,
                         1,
                         0x55aa,
                         0x8000,
                         0xffff,
                         0x80000000,
                         0xdeadbeef,
                         0xffffffff,
                         0x8000000000000000,
                         0x0123456789abcdef,
                         ~u64{0}};
const Values kCounts = {0, 1, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 255, 256, 0xffffffff};

u64 bit(u64 value, u64 i) { return i < 64 ? (value >> i) & 1 : 0; }
int bits_of(const std::string& type) { return 8 * bytes_of_type(type); }
std::string bits_type(const std::string& type) { return untyped(bits_of(type)); }

/// Each of `values` with each of `counts`.
std::vector<Values> pairs(const Values& values, const Values& counts) {
  std::vector<Values> rows;
  for (const u64 value : values) {
    for (const u64 count : counts) rows.push_back({value, count});
  }
  return rows;
}

void test_logic() {
  struct Case {
    const char* opcode;
    std::function<u64(u64, u64)> f;
  };
  const Case cases[] = {{"and", [](u64 a, u64 b) { return a & b; }},
                        {"or", [](u64 a, u64 b) { return a | b; }},
                        {"xor", [](u64 a, u64 b) { return a ^ b; }}};
  for (const std::string type : {"pred", "b16", "b32", "b64"}) {
    for (const Case& c : cases) {
      check_rows({c.opcode + ("." + type), type, {type, type}},
                 with_random(tuples(kSpecial, 2), 99, 2),
                 [&](const Values& in) { return c.f(in[0], in[1]); });
    }
    check_rows({"not." + type, type, {type}}, tuples(kSpecial, 1),
               [&](const Values& in) { return type == "pred" ? u64{in[0] == 0} : ~in[0]; });
    if (type == "pred") continue;
    check_rows({"cnot." + type, type, {type}}, tuples(kSpecial, 1),
               [](const Values& in) { return u64{in[0] == 0}; });
  }
}

void test_lop3() {
  for (const u64 table : {0x00, 0x01, 0x80, 0xff, 0x96, 0xe8, 0xca, 0x1b}) {
    Instructed instructed{"lop3.b32", "b32", {"b32", "b32", "b32"}};
    instructed.operands = "%d, %a, %b, %c, " + std::to_string(table);
    check_rows(instructed, with_random({}, 64, 3), [&](const Values& in) {
      u64 result = 0;
      for (u64 i = 0; i < 32; ++i) {
        const u64 row = bit(in[0], i) * 4 + bit(in[1], i) * 2 + bit(in[2], i);
        result |= bit(table, row) << i;
      }
      return result;
    });
  }
  CHECK_ERROR(run_ptx({.body = ".reg .b32 %r;\nlop3.b32 %r, 1, 1, 1, 256;"}), "8 bits");
}

void test_shifts() {
  for (const std::string type : {"b16", "b32", "b64", "u16", "u32", "u64", "s16", "s32", "s64"}) {
    const std::string bits = bits_type(type);
    const u64 size = static_cast<u64>(bits_of(type));
    if (type[0] == 'b') {
      check_rows({"shl." + type, bits, {bits, "b32"}}, pairs(kSpecial, kCounts),
                 [&](const Values& in) { return in[1] >= size ? 0 : in[0] << in[1]; });
    }
    check_rows({"shr." + type, bits, {bits, "b32"}}, pairs(kSpecial, kCounts),
               [&](const Values& in) {
                 const u64 fill = type[0] == 's' ? bit(in[0], size - 1) : 0;
                 u64 result = 0;
                 for (u64 i = 0; i < size; ++i) {
                   result |= (i + in[1] < size ? bit(in[0], i + in[1]) : fill) << i;
                 }
                 return result;
               });
  }
}

void test_funnel() {
  std::vector<Values> rows;
  for (const u64 count : kCounts) {
    for (const Values& row : with_random({}, 16, 2)) rows.push_back({row[0], row[1], count});
  }
  for (const std::string mode : {"clamp", "wrap"}) {
    const auto count = [&](u64 c) { return mode == "wrap" ? c % 32 : std::min<u64>(c, 32); };
    check_rows({"shf.l." + mode + ".b32", "b32", {"b32", "b32", "b32"}}, rows,
               [&](const Values& in) {
                 const u64 n = count(in[2]);
                 u64 result = 0;
                 for (u64 i = 0; i < 32; ++i) {
                   result |= (i >= n ? bit(in[1], i - n) : bit(in[0], 32 + i - n)) << i;
                 }
                 return result;
               });
    check_rows({"shf.r." + mode + ".b32", "b32", {"b32", "b32", "b32"}}, rows,
               [&](const Values& in) {
                 const u64 n = count(in[2]);
                 u64 result = 0;
                 for (u64 i = 0; i < 32; ++i) {
                   result |= (i + n < 32 ? bit(in[0], i + n) : bit(in[1], i + n - 32)) << i;
                 }
                 return result;
               });
  }
}

void test_prmt() {
  check_rows({"prmt.b32", "b32", {"b32", "b32", "b32"}}, with_random({}, 1000, 3),
             [](const Values& in) {
               u64 result = 0;
               for (int i = 0; i < 4; ++i) {
                 const u64 choice = in[2] >> (4 * i);
                 const u64 from = (choice & 4) != 0 ? in[1] : in[0];
                 u64 byte = (from >> (8 * (choice & 3))) & 0xff;
                 if ((choice & 8) != 0) byte = byte >= 0x80 ? 0xff : 0;
                 result |= byte << (8 * i);
               }
               return result;
             });
}

/// The manual's loops, taken literally.
void test_fields() {
  std::vector<Values> extracts;
  std::vector<Values> inserts;
  for (const u64 position : kCounts) {
    for (const u64 length : kCounts) {
      for (const u64 value : {u64{0}, ~u64{0}, u64{0x8000000080000000}, u64{0x0123456789abcdef}}) {
        extracts.push_back({value, position, length});
        inserts.push_back({value, 0xfedcba9876543210, position, length});
      }
    }
  }
  for (const std::string type : {"u32", "u64", "s32", "s64"}) {
    const std::string bits = bits_type(type);
    const u64 msb = static_cast<u64>(bits_of(type)) - 1;
    check_rows({"bfe." + type, bits, {bits, "b32", "b32"}}, extracts, [&](const Values& in) {
      const u64 position = in[1] & 0xff;
      const u64 length = in[2] & 0xff;
      const bool has_sign = type[0] == 's' && length != 0;
      const u64 sign = has_sign ? bit(in[0], std::min(position + length - 1, msb)) : 0;
      u64 result = 0;
      for (u64 i = 0; i <= msb; ++i) {
        result |= (i < length && position + i <= msb ? bit(in[0], position + i) : sign) << i;
      }
      return result;
    });
  }
  for (const std::string type : {"b32", "b64"}) {
    const u64 msb = static_cast<u64>(bits_of(type)) - 1;
    check_rows({"bfi." + type, type, {type, type, "b32", "b32"}}, inserts, [&](const Values& in) {
      const u64 position = in[2] & 0xff;
      const u64 length = in[3] & 0xff;
      u64 result = in[1];
      for (u64 i = 0; i < length && position + i <= msb; ++i) {
        const u64 at = u64{1} << (position + i);
        result = bit(in[0], i) != 0 ? result | at : result & ~at;
      }
      return result;
    });
  }
}

void test_searches() {
  std::vector<Values> rows = with_random(tuples(kSpecial, 1), 64, 1);
  for (u64 i = 0; i < 64; ++i) {
    rows.push_back({u64{1} << i});
    rows.push_back({~u64{0} << i});
    rows.push_back({~u64{0} >> i});
  }
  for (const std::string type : {"u32", "s32", "u64", "s64"}) {
    const std::string bits = bits_type(type);
    const u64 size = static_cast<u64>(bits_of(type));
    const auto find = [&](u64 value) -> s64 {
      const u64 sign = type[0] == 's' ? bit(value, size - 1) : 0;
      for (u64 i = size; i-- > 0;) {
        if (bit(value, i) != sign) return static_cast<s64>(i);
      }
      return -1;
    };
    check_rows({"bfind." + type, "b32", {bits}}, rows,
               [&](const Values& in) { return static_cast<u64>(find(in[0])); });
    check_rows({"bfind.shiftamt." + type, "b32", {bits}}, rows, [&](const Values& in) {
      const s64 found = find(in[0]);
      return found < 0 ? ~u64{0} : size - 1 - static_cast<u64>(found);
    });
    if (type[0] == 's') continue;
    check_rows({"popc." + bits, "b32", {bits}}, rows, [&](const Values& in) {
      u64 count = 0;
      for (u64 i = 0; i < size; ++i) count += bit(in[0], i);
      return count;
    });
    check_rows({"clz." + bits, "b32", {bits}}, rows, [&](const Values& in) {
      u64 count = 0;
      while (count < size && bit(in[0], size - 1 - count) == 0) ++count;
      return count;
    });
    check_rows({"brev." + bits, bits, {bits}}, rows, [&](const Values& in) {
      u64 result = 0;
      for (u64 i = 0; i < size; ++i) result |= bit(in[0], i) << (size - 1 - i);
      return result;
    });
  }
}

void test_masks() {
  for (const std::string mode : {"clamp", "wrap"}) {
    const auto count = [&](u64 c) { return mode == "wrap" ? c % 32 : std::min<u64>(c, 32); };
    check_rows({"bmsk." + mode + ".b32", "b32", {"b32", "b32"}}, tuples(kCounts, 2),
               [&](const Values& in) {
                 u64 result = 0;
                 for (u64 i = 0; i < count(in[1]); ++i) result |= u64{1} << (count(in[0]) + i);
                 return result;
               });
    for (const std::string type : {"u32", "s32"}) {
      check_rows({"szext." + mode + "." + type, "b32", {"b32", "b32"}}, pairs(kSpecial, kCounts),
                 [&](const Values& in) {
                   const u64 length = count(in[1]);
                   if (length == 0) return u64{0};
                   const u64 sign = type == "s32" ? bit(in[0], length - 1) : 0;
                   u64 result = 0;
                   for (u64 i = 0; i < 32; ++i) result |= (i < length ? bit(in[0], i) : sign) << i;
                   return result;
                 });
    }
  }
}

}  // namespace

int main() {
  test_logic();
  test_lop3();
  test_shifts();
  test_funnel();
  test_prmt();
  test_fields();
  test_searches();
  test_masks();
  CHECK_FORMS("and", "or", "xor", "not", "cnot", "lop3", "shl", "shr", "shf", "prmt", "bfe", "bfi",
              "bfind", "popc", "clz", "brev", "bmsk", "szext");
  return finish();
}
