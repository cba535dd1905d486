// atom, red: every operation and type, on lanes that share a word and on lanes that do not.
// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cmath>
#include <cstring>

#include "device_memory.h"
#include "ptx.h"
#include "run_ptx.h"
#include "test.h"

namespace {

using namespace ptxsim;
using namespace ptxsim::test;

struct Case {
  std::string operation, type;  // ".add", "u32"
  /// The memory word after the operation.
  std::function<u64(u64 before, u64 b, u64 c)> expected;
};

u64 low(u64 value, u32 bytes) { return bytes == 8 ? value : value & ((u64{1} << 8 * bytes) - 1); }

s64 as_signed(u64 value, u32 bytes) {
  const int shift = static_cast<int>(64 - 8 * bytes);
  return static_cast<s64>(value << shift) >> shift;
}

u64 float_sum(u64 x, u64 b) {
  const float sum =
      std::bit_cast<float>(static_cast<u32>(x)) + std::bit_cast<float>(static_cast<u32>(b));
  return std::bit_cast<u32>(sum);
}

/// f16 by its definition: sign, 5 bits of exponent, 10 of mantissa. Small integers only.
u64 f16_of(int value) {
  if (value == 0) return 0;
  const int exponent = std::ilogb(value);
  const auto mantissa = static_cast<u64>(std::ldexp(std::abs(value), 10 - exponent)) - 1024;
  return (value < 0 ? 0x8000u : 0u) | static_cast<u64>(exponent + 15) << 10 | mantissa;
}
u64 bf16_of(int value) { return std::bit_cast<u32>(static_cast<float>(value)) >> 16; }

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* type : {"u32", "u64", "s32", "s64"}) {
    const u32 bytes = bytes_of_type(type);
    const bool is_signed = type[0] == 's';
    const auto less = [=](u64 x, u64 y) {
      return is_signed ? as_signed(x, bytes) < as_signed(y, bytes) : x < y;
    };
    all.push_back({".add", type, [](u64 x, u64 b, u64) { return x + b; }});
    all.push_back({".min", type, [=](u64 x, u64 b, u64) { return less(b, x) ? b : x; }});
    all.push_back({".max", type, [=](u64 x, u64 b, u64) { return less(x, b) ? b : x; }});
  }
  for (const char* type : {"b32", "b64"}) {
    all.push_back({".and", type, [](u64 x, u64 b, u64) { return x & b; }});
    all.push_back({".or", type, [](u64 x, u64 b, u64) { return x | b; }});
    all.push_back({".xor", type, [](u64 x, u64 b, u64) { return x ^ b; }});
    all.push_back({".exch", type, [](u64, u64 b, u64) { return b; }});
  }
  for (const char* type : {"b16", "b32", "b64"}) {
    all.push_back({".cas", type, [](u64 x, u64 b, u64 c) { return x == b ? c : x; }});
  }
  all.push_back({".inc", "u32", [](u64 x, u64 b, u64) { return x >= b ? 0 : x + 1; }});
  all.push_back({".dec", "u32", [](u64 x, u64 b, u64) { return x == 0 || x > b ? b : x - 1; }});
  return all;
}

bool has_result_only(const std::string& operation) {
  return operation == ".exch" || operation == ".cas";
}

/// Each lane works on its own word (`pitch` 8), or all on one (0).
std::string program(const std::string& opcode, const std::string& type, bool has_result, bool has_c,
                    u32 pitch) {
  const std::string bits = std::to_string(8 * bytes_of_type(type));
  const auto narrow = [&](const std::string& to, const std::string& from) {
    return bits == "64" ? "mov.b64 " + to + ", " + from + ";\n"
                        : "cvt.u" + bits + ".u64 " + to + ", " + from + ";\n";
  };
  return ".reg .b" + bits + " %d, %b, %c;\n.reg .b64 %a;\nmov.b" + bits + " %d, 0;\n" +
         narrow("%b", "%in0") + narrow("%c", "%in1") + "mad.wide.u32 %a, %tid, " +
         std::to_string(pitch) + ", %p0;\n" + opcode + "." + type + (has_result ? " %d," : "") +
         " [%a], %b" + (has_c ? ", %c" : "") + ";\n" +
         (bits == "64" ? "mov.b64 %out0, %d;" : "cvt.u64.u" + bits + " %out0, %d;");
}

struct Operands {
  Values memory, b, c;
};

/// Random words, many of them equal or nearly so.
Operands operands_for(u32 bytes) {
  Operands operands{Values(32), Values(32), Values(32)};
  std::mt19937_64 random(bytes);
  for (u32 i = 0; i < 32; ++i) {
    operands.memory[i] = low(i % 4 == 0 ? i / 4 : random(), bytes);
    operands.b[i] = low(i % 3 == 0 ? operands.memory[i] : random(), bytes);
    operands.c[i] = low(random(), bytes);
  }
  return operands;
}

void check_case(const Case& test, const std::string& root, const std::string& modifiers) {
  const u32 bytes = bytes_of_type(test.type);
  const bool has_result = root == "atom";
  const std::string opcode = root + modifiers + test.operation;
  const bool has_c = test.operation == ".cas";
  const Operands operands = operands_for(bytes);
  DeviceMemory<u64> apart(operands.memory);
  const Values old = run_ptx({.body = program(opcode, test.type, has_result, has_c, 8),
                              .inputs = {operands.b, operands.c},
                              .parameters = {apart.address()}})[0];
  DeviceMemory<u64> one({operands.memory[0]});
  const Values in_turn = run_ptx({.body = program(opcode, test.type, has_result, has_c, 0),
                                  .inputs = {operands.b, operands.c},
                                  .parameters = {one.address()}})[0];
  u64 word = operands.memory[0];
  for (u32 lane = 0; lane < 32; ++lane) {
    const u64 b = operands.b[lane];
    const u64 c = operands.c[lane];
    const u64 before = operands.memory[lane];
    CHECK(apart[lane] == low(test.expected(before, b, c), bytes), opcode, test.type, lane);
    if (has_result) CHECK(old[lane] == before, opcode, test.type, lane);
    if (has_result) CHECK(in_turn[lane] == word, opcode, test.type, lane);
    word = low(test.expected(word, b, c), bytes);
  }
  CHECK(one[0] == word, opcode, test.type);
}

void test_integers() {
  for (const Case& test : cases()) {
    check_case(test, "atom", ".global");
    check_case(test, "atom", "");
    check_case(test, "atom", ".acq_rel.gpu.global");
    if (has_result_only(test.operation)) continue;
    check_case(test, "red", ".global");
    check_case(test, "red", ".relaxed.sys.global");
  }
}

/// A word that held x, after thread 0 has added b.
u64 sum_of(const std::string& type, const std::string& modifiers, u64 x, u64 b) {
  DeviceMemory<u64> word({x});
  run_ptx({.body = ".reg .pred %other;\nsetp.ne.u32 %other, %tid, 0;\n@%other bra end_of_body;\n" +
                   program("atom" + modifiers, type, /*has_result=*/true, /*has_c=*/false, 0) +
                   "\nend_of_body:\nmov.b64 %out0, 0;",
           .inputs = {{b}, {0}},
           .parameters = {word.address()}});
  return low(word[0], bytes_of_type(type));
}

void test_floats() {
  const auto bits = [](float x) { return u64{std::bit_cast<u32>(x)}; };
  for (const auto& [x, b] :
       {std::pair{1.5f, 2.25f}, {-0.0f, 0.0f}, {1e30f, -1e30f}, {3.0f, 0.1f}}) {
    CHECK(sum_of("f32", ".global.add", bits(x), bits(b)) == float_sum(bits(x), bits(b)), x, b);
  }
  // Subnormals are flushed in global memory; they keep their sign.
  CHECK(sum_of("f32", ".global.add", bits(0x1p-130f), bits(0x1p-130f)) == 0);
  CHECK(sum_of("f32", ".add", bits(0x1p-126f), bits(0x1p-130f)) == bits(0x1p-126f));
  const double big = 1e300;
  CHECK(sum_of("f64", ".global.add", std::bit_cast<u64>(big), std::bit_cast<u64>(1.0)) ==
        std::bit_cast<u64>(big + 1.0));
  CHECK(sum_of("f16", ".global.add.noftz", f16_of(3), f16_of(-8)) == f16_of(-5));
  CHECK(sum_of("bf16", ".global.add.noftz", bf16_of(3), bf16_of(9)) == bf16_of(12));
  CHECK(sum_of("f16x2", ".global.add.noftz", f16_of(3) | f16_of(7) << 16,
               f16_of(1) | f16_of(-9) << 16) == (f16_of(4) | f16_of(-2) << 16));
  CHECK(sum_of("bf16x2", ".global.add.noftz", bf16_of(3) | bf16_of(7) << 16,
               bf16_of(1) | bf16_of(-9) << 16) == (bf16_of(4) | bf16_of(-2) << 16));
}

void test_shared() {
  const Values out = run_ptx({.body = R"(
      .shared .align 8 .b8 word[8];
      .reg .b32 %old, %sum, %half;
      .reg .b32 %f;
      mov.u32 %half, 0x00400000;
      st.shared.u32 [word], 0;
      st.shared.u32 [word+4], 0;
      bar.warp.sync 0xffffffff;
      atom.shared.add.u32 %old, [word], %tid;
      red.shared::cta.add.f32 [word+4], %half;
      bar.warp.sync 0xffffffff;
      ld.shared.u32 %sum, [word];
      ld.shared.u32 %f, [word+4];
      mad.lo.u32 %sum, %sum, 1000, %old;
      cvt.u64.u32 %out0, %sum;
      cvt.u64.u32 %out1, %f;)",
                              .num_outputs = 2})[0];
  u32 before = 0;
  for (u32 lane = 0; lane < 32; ++lane) {
    CHECK(out[lane] == 496000 + before, lane, out[lane]);
    before += lane;
  }
}

/// Subnormals are kept in shared memory: 2 * 2^-127 is normal.
void test_shared_subnormal() {
  const Values out = run_ptx({.body = R"(
      .shared .align 4 .b8 word[4];
      .reg .b32 %half, %f;
      .reg .pred %p;
      mov.u32 %half, 0x00400000;
      st.shared.u32 [word], 0;
      bar.warp.sync 0xffffffff;
      setp.lt.u32 %p, %tid, 2;
      @%p red.shared.add.f32 [word], %half;
      bar.warp.sync 0xffffffff;
      ld.shared.u32 %f, [word];
      cvt.u64.u32 %out0, %f;)"})[0];
  CHECK(out[5] == 0x00800000, out[5]);
}

void test_errors() {
  const DeviceMemory<u64> word({0});
  const auto run = [&](const std::string& line) {
    run_ptx({.body = ".reg .b32 %d, %b;\nmov.b32 %b, 1;\n" + line + "\nmov.b64 %out0, 0;",
             .parameters = {word.address()}});
  };
  CHECK(error_of([&] { run("atom.global.add.u32 %d, [%p0+4], %b;"); }).empty());
  CHECK_ERROR(run("atom.global.add.u32 %d, [%p0+8], %b;"), "invalid global");
  CHECK_ERROR(run("red.global.add.u32 [%p0+2], %b;"), "misaligned");
  CHECK_ERROR(run("red.global.exch.b32 [%p0], %b;"), "'.exch' is not known");
  CHECK_ERROR(run("atom.global.inc.u64 %d, [%p0], %b;"), "'.u64' is not known");
}

}  // namespace

int main() {
  test_integers();
  test_floats();
  test_shared();
  test_shared_subnormal();
  test_errors();
  CHECK_FORMS("atom", "red");
  return finish();
}
