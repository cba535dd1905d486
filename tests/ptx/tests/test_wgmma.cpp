// wgmma: every shape, type, layout and way of landing, against the manual's definition.
// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "test.h"
#include "wgmma_program.h"

namespace {

using namespace ptxsim;
using namespace ptxsim::test;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

struct Matrices {
  std::vector<float> a, b, c;
};

/// Integers, so that all sums are exact even in f16.
Matrices integers(const WgmmaCase& product, u32 seed) {
  std::mt19937 random(seed);
  const auto draw = [&](std::size_t count, int limit) {
    std::vector<float> values(count);
    for (float& value : values) {
      value = static_cast<float>(static_cast<int>(random() % (2 * limit + 1)) - limit);
    }
    return values;
  };
  return {draw(64 * 16, 4), draw(product.n * 16, 4), draw(64 * product.n, 100)};
}

std::vector<float> expected(const WgmmaCase& product, const Matrices& matrices, int times = 1) {
  std::vector<float> result(64 * product.n);
  for (u32 m = 0; m < 64; ++m) {
    for (u32 n = 0; n < product.n; ++n) {
      double sum = 0;
      for (u32 k = 0; k < 16; ++k) {
        sum += double{matrices.a[m * 16 + k]} * product.scale_a * matrices.b[n * 16 + k] *
               product.scale_b;
      }
      const double before = product.accumulates ? matrices.c[m * product.n + n] : 0;
      result[m * product.n + n] =
          static_cast<float>(before + (product.accumulates ? times : 1) * sum);
    }
  }
  return result;
}

std::string name(const WgmmaCase& p) {
  return "n " + std::to_string(p.n) + (p.is_bf16 ? " bf16" : " f16") +
         (p.f16_accumulators ? " to f16" : " to f32") +
         (p.a_in_registers ? " a in registers" : "") + (p.a_is_mn_major ? " a mn" : "") +
         (p.b_is_mn_major ? " b mn" : "") + " swizzle " + std::to_string(p.swizzle) + " first_k " +
         std::to_string(p.first_k) + " gap " + std::to_string(p.gap);
}

void check_case(const WgmmaCase& product, u32 seed) {
  const Matrices matrices = integers(product, seed);
  WgmmaProgram program(product, matrices.a, matrices.b, matrices.c);
  const std::vector<float> result =
      program.run(program.setup() + program.whole() + program.store());
  CHECK(result == expected(product, matrices), name(product));
}

/// A number for each combination of types, A's place and majors.
constexpr u32 kKinds = 18;
WgmmaCase kind(u32 i) {
  WgmmaCase product;
  product.is_bf16 = i % 3 == 0;
  product.f16_accumulators = i % 3 == 2;
  product.b_is_mn_major = i / 3 % 2 != 0;
  product.a_in_registers = i / 6 == 0;
  product.a_is_mn_major = i / 6 == 1;
  return product;
}

void test_shapes() {
  for (u32 n = 8; n <= 256; n += 8) {
    for (u32 type = 0; type < 3; ++type) {
      WgmmaCase product = kind((type + n / 8 * 3) % kKinds);
      product.n = n;
      product.swizzle = n / 8 % 4;
      check_case(product, n + type);
    }
  }
}

void test_layouts() {
  for (u32 i = 0; i < kKinds; ++i) {
    for (u32 swizzle = 0; swizzle < 4; ++swizzle) {
      WgmmaCase product = kind(i);
      product.n = 88;  // More than a row of any swizzle, and not a multiple of the longest.
      product.swizzle = swizzle;
      check_case(product, i);
      product.gap = 1024;
      check_case(product, i + 100);
      // Swizzled groups are at multiples of 1 KiB, others at any multiple of 16 bytes.
      product.gap = 48;
      if (swizzle == 0) check_case(product, i + 200);
    }
  }
  for (u32 first_k = 16; first_k < 64; first_k += 16) {
    for (u32 swizzle = 2; swizzle < 4; ++swizzle) {
      WgmmaCase product;
      product.swizzle = swizzle;
      product.first_k = first_k;
      if (first_k + 16 <= 8u << swizzle) check_case(product, first_k);
    }
  }
}

void test_scales() {
  for (const bool accumulates : {false, true}) {
    for (const int scale_a : {1, -1}) {
      for (const int scale_b : {1, -1}) {
        WgmmaCase product = kind(0);
        product.accumulates = accumulates;
        product.scale_a = scale_a;
        product.scale_b = scale_b;
        check_case(product, 7);
        product.a_in_registers = false;
        check_case(product, 8);
      }
    }
  }
  // scale-d as an immediate, and as a negated predicate.
  WgmmaCase product;
  const Matrices matrices = integers(product, 9);
  for (const auto& [written, accumulates] :
       {std::pair{"0", false}, {"1", true}, {"!%scale", false}, {"%scale", true}}) {
    WgmmaProgram program(product, matrices.a, matrices.b, matrices.c);
    std::string line = program.product();
    line.replace(line.find("%scale"), 6, written);
    WgmmaCase meant = product;
    meant.accumulates = accumulates;
    CHECK(program.run(program.setup() + kWgmmaFence + line + kWgmmaCommit + kWgmmaWait +
                      program.store()) == expected(meant, matrices),
          written);
  }
}

/// The order that multiply.h states, and cases in which order does not matter.
void test_arithmetic() {
  WgmmaCase product;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  Matrices matrices = integers(product, 1);
  for (float& value : matrices.a) value = bf16_to_float(float_to_bf16(normal(random)));
  for (float& value : matrices.b) value = bf16_to_float(float_to_bf16(normal(random)));
  for (float& value : matrices.c) value = normal(random);
  matrices.a[0] = kNan;
  matrices.a[16] = kInf;
  matrices.a[32] = 0x1p-133f;  // Subnormal.
  for (u32 k = 1; k < 16; ++k) matrices.a[32 + k] = 0;
  std::fill_n(&matrices.c[2 * product.n], product.n, 0.0f);
  WgmmaProgram program(product, matrices.a, matrices.b, matrices.c);
  const std::vector<float> result =
      program.run(program.setup() + program.whole() + program.store());
  for (u32 m = 0; m < 64; ++m) {
    for (u32 n = 0; n < product.n; ++n) {
      float sum = 0;
      for (u32 k = 0; k < 16; ++k) {
        sum = std::fma(matrices.a[m * 16 + k], matrices.b[n * 16 + k], sum);
      }
      const float want = matrices.c[m * product.n + n] + sum;
      const u32 bits = std::bit_cast<u32>(result[m * product.n + n]);
      CHECK(bits == (std::isnan(want) ? 0x7fffffffu : std::bit_cast<u32>(want)), m, n, bits);
      if (m == 2) CHECK(result[2 * product.n + n] == matrices.a[32] * matrices.b[n * 16], n);
    }
  }
}

void test_f16_accumulators_round() {
  WgmmaCase product = kind(2);
  Matrices matrices = integers(product, 1);
  std::fill(matrices.a.begin(), matrices.a.end(), 0.0f);
  for (u32 m = 0; m < 64; ++m) matrices.a[m * 16] = 1;
  std::fill(matrices.b.begin(), matrices.b.end(), 0.0f);
  matrices.b[0] = 1;       // 2048 + 1 is a tie, rounded to even.
  matrices.b[16] = 3;      // 2051 is rounded to 2052.
  matrices.b[32] = 65504;  // Overflows.
  matrices.b[48] = kNan;
  std::fill(matrices.c.begin(), matrices.c.end(), 2048.0f);
  WgmmaProgram program(product, matrices.a, matrices.b, matrices.c);
  const std::vector<float> result =
      program.run(program.setup() + program.whole() + program.store());
  for (u32 m = 0; m < 64; ++m) {
    const float* const row = &result[m * product.n];
    CHECK(row[0] == 2048 && row[1] == 2052 && row[2] == kInf && std::isnan(row[3]), m, row[0],
          row[1], row[2], row[3]);
  }
}

/// Groups in flight, however they land.
void test_groups() {
  const Options before = options();
  for (const Landing landing : {Landing::kAtOnce, Landing::kLate, Landing::kRandom}) {
    for (u32 seed = 1; seed <= 8; ++seed) {
      options().landing = landing;
      options().seed = seed;
      WgmmaCase product = kind(seed % kKinds);
      const Matrices matrices = integers(product, seed);
      WgmmaProgram program(product, matrices.a, matrices.b, matrices.c);
      const std::string line = program.product();
      const std::string rest = line + kWgmmaCommit + line + kWgmmaCommit +
                               "wgmma.wait_group.sync.aligned 1;\n" + line + kWgmmaCommit +
                               kWgmmaWait + program.store();
      CHECK(program.run(program.setup() + kWgmmaFence + line + rest) ==
                expected(product, matrices, 4),
            name(product), seed);
      // The first product overwrites the accumulators; the others must come after it.
      WgmmaProgram anew(product, matrices.a, matrices.b,
                        std::vector<float>(matrices.c.size(), 1000));
      Matrices from_zero = matrices;
      std::fill(from_zero.c.begin(), from_zero.c.end(), 0.0f);
      std::string first = line;
      first.replace(first.find("%scale"), 6, "0");
      CHECK(anew.run(anew.setup() + kWgmmaFence + first + rest) == expected(product, from_zero, 4),
            name(product), seed);
      if (landing != Landing::kRandom) break;
    }
  }
  options() = before;
}

void test_counts() {
  WgmmaCase product;
  product.n = 40;
  const Matrices matrices = integers(product, 1);
  WgmmaProgram program(product, matrices.a, matrices.b, matrices.c);
  Counts counts;
  program.run(program.setup() + program.whole(), 128, &counts);
  CHECK(counts.wgmma_flops == 2 * 64 * 40 * 16, counts.wgmma_flops);
  CHECK(counts.mma_flops == 0);
}

}  // namespace

int main() {
  test_shapes();
  test_layouts();
  test_scales();
  test_arithmetic();
  test_f16_accumulators_round();
  test_groups();
  test_counts();
  CHECK_FORMS("wgmma");
  return finish();
}
