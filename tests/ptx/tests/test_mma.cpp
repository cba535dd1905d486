// mma.sync, and the arithmetic that wgmma shares with it.
// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "half.h"
#include "multiply.h"
#include "run_ptx.h"
#include "test.h"

namespace {

using namespace ptxsim;
using namespace ptxsim::test;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

struct Mma {
  bool is_bf16 = true;
  bool f16_accumulators = false;
  u32 k = 16;

  std::string opcode() const {
    const std::string type = is_bf16 ? "bf16" : "f16", wide = f16_accumulators ? "f16" : "f32";
    return "mma.sync.aligned.m16n8k" + std::to_string(k) + ".row.col." + wide + "." + type + "." +
           type + "." + wide;
  }
  u32 num_a() const { return k / 4; }
  u32 num_b() const { return k / 8; }
  u32 num_c() const { return f16_accumulators ? 2 : 4; }
  u16 encode(float value) const { return is_bf16 ? float_to_bf16(value) : float_to_f16(value); }
};

/// A [16][16], B [8][16] (each column's k side by side), C [16][8].
struct Matrices {
  std::array<float, 256> a = {};
  std::array<float, 128> b = {};
  std::array<float, 128> c = {};
};

struct Place {
  u32 row, column;
};
/// Fragments of m16n8k16 and m16n8k8 (section 9.7.14.5.8): place of a lane's element i.
Place place_of_a(u32 lane, u32 i) {
  const bool is_first_row = i < 2 || (i >= 4 && i < 6);
  return {lane / 4 + (is_first_row ? 0u : 8u), lane % 4 * 2 + (i & 1) + (i >= 4 ? 8u : 0u)};
}
Place place_of_b(u32 lane, u32 i) {  // Row: k.
  return {lane % 4 * 2 + (i & 1) + (i >= 2 ? 8u : 0u), lane / 4};
}
Place place_of_c(u32 lane, u32 i) { return {lane / 4 + (i < 2 ? 0u : 8u), lane % 4 * 2 + (i & 1)}; }

/// A fragment's registers: two 16-bit elements each.
template <class Element>
void add_pairs(std::vector<Values>& inputs, u32 count, Element bits_of) {
  for (u32 reg = 0; reg < count; ++reg) {
    Values& values = inputs.emplace_back(32);
    for (u32 lane = 0; lane < 32; ++lane) {
      values[lane] = bits_of(lane, 2 * reg) | u32{bits_of(lane, 2 * reg + 1)} << 16;
    }
  }
}

std::vector<Values> fragments(const Mma& mma, const Matrices& matrices) {
  std::vector<Values> inputs;
  add_pairs(inputs, mma.num_a(), [&](u32 lane, u32 i) {
    const Place place = place_of_a(lane, i);
    return mma.encode(matrices.a[place.row * 16 + place.column]);
  });
  add_pairs(inputs, mma.num_b(), [&](u32 lane, u32 i) {
    const Place place = place_of_b(lane, i);
    return mma.encode(matrices.b[place.column * 16 + place.row]);
  });
  const auto c = [&](u32 lane, u32 i) {
    const Place place = place_of_c(lane, i);
    return matrices.c[place.row * 8 + place.column];
  };
  if (mma.f16_accumulators) {
    add_pairs(inputs, 2, [&](u32 lane, u32 i) { return float_to_f16(c(lane, i)); });
  } else {
    for (u32 i = 0; i < 4; ++i) {
      Values& values = inputs.emplace_back(32);
      for (u32 lane = 0; lane < 32; ++lane) values[lane] = std::bit_cast<u32>(c(lane, i));
    }
  }
  return inputs;
}

std::string vector_of(u32 first, u32 count) {
  std::string text;
  for (u32 i = 0; i < count; ++i) text += (i == 0 ? "{%r" : ", %r") + std::to_string(first + i);
  return text + "}";
}

/// Loads %r0.. in the order A, B, C.
std::string load(u32 count) {
  std::string text = ".reg .b32 %r<32>;\n";
  for (u32 i = 0; i < count; ++i) {
    text += "cvt.u32.u64 %r" + std::to_string(i) + ", %in" + std::to_string(i) + ";\n";
  }
  return text;
}

std::array<u32, 128> run(const Mma& mma, const Matrices& matrices, u32 first_d = 20,
                         Counts* counts = nullptr) {
  const std::vector<Values> inputs = fragments(mma, matrices);
  const u32 first_b = mma.num_a(), first_c = first_b + mma.num_b();
  std::string body = load(static_cast<u32>(inputs.size()));
  body += mma.opcode() + " " + vector_of(first_d, mma.num_c()) + ", " + vector_of(0, mma.num_a()) +
          ", " + vector_of(first_b, mma.num_b()) + ", " + vector_of(first_c, mma.num_c()) + ";\n";
  for (u32 i = 0; i < mma.num_c(); ++i) {
    body += "cvt.u64.u32 %out" + std::to_string(i) + ", %r" + std::to_string(first_d + i) + ";\n";
  }
  const auto out = run_ptx(
      {.body = body, .inputs = inputs, .num_outputs = static_cast<int>(mma.num_c())}, counts);
  std::array<u32, 128> result = {};
  for (u32 lane = 0; lane < 32; ++lane) {
    for (u32 i = 0; i < 4; ++i) {
      const Place place = place_of_c(lane, i);
      const u64 bits =
          mma.f16_accumulators ? out[i / 2][lane] >> (16 * (i % 2)) & 0xffff : out[i][lane];
      result[place.row * 8 + place.column] = static_cast<u32>(bits);
    }
  }
  return result;
}

/// Sums in the order that multiply.h states.
std::array<u32, 128> expected(const Mma& mma, const Matrices& matrices) {
  std::array<u32, 128> result = {};
  for (u32 m = 0; m < 16; ++m) {
    for (u32 n = 0; n < 8; ++n) {
      float sum = 0;
      for (u32 k = 0; k < mma.k; ++k) {
        sum = std::fma(matrices.a[m * 16 + k], matrices.b[n * 16 + k], sum);
      }
      sum += matrices.c[m * 8 + n];
      const u32 bits = std::isnan(sum) ? 0x7fffffffu : std::bit_cast<u32>(sum);
      result[m * 8 + n] = mma.f16_accumulators ? float_to_f16(sum) : bits;
    }
  }
  return result;
}

std::vector<Mma> all_forms() {
  std::vector<Mma> forms;
  for (const u32 k : {8u, 16u}) {
    forms.push_back({true, false, k});
    forms.push_back({false, false, k});
    forms.push_back({false, true, k});
  }
  return forms;
}

/// Random values that the form's types hold.
Matrices normals(const Mma& mma, u32 seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const auto held = [&] {
    const u16 bits = mma.encode(normal(random));
    return mma.is_bf16 ? bf16_to_float(bits) : f16_to_float(bits);
  };
  Matrices matrices;
  for (float& value : matrices.a) value = held();
  for (float& value : matrices.b) value = held();
  for (float& value : matrices.c) {
    value = normal(random);
    if (mma.f16_accumulators) value = f16_to_float(float_to_f16(value));
  }
  return matrices;
}

void test_values() {
  for (const Mma& mma : all_forms()) {
    for (u32 seed = 1; seed <= 8; ++seed) {
      const Matrices matrices = normals(mma, seed);
      CHECK(run(mma, matrices) == expected(mma, matrices), mma.opcode(), seed);
    }
    Matrices special = normals(mma, 9);
    special.a[0] = kNan;
    special.a[16] = kInf;
    special.a[33] = -kInf;
    special.b[5] = 0;
    special.b[16] = -0.0f;
    special.b[17] = mma.is_bf16 ? 0x1p-133f : 0x1p-24f;  // The smallest subnormal.
    special.c[40] = -0.0f;
    special.c[41] = kNan;
    special.c[42] = kInf;
    CHECK(run(mma, special) == expected(mma, special), mma.opcode());
    // Compares with the definition in double, within float32's rounding errors.
    const Matrices matrices = normals(mma, 10);
    const auto result = run(mma, matrices);
    for (u32 m = 0; m < 16; ++m) {
      for (u32 n = 0; n < 8; ++n) {
        double sum = matrices.c[m * 8 + n], magnitude = std::abs(sum);
        for (u32 k = 0; k < mma.k; ++k) {
          const double product = double{matrices.a[m * 16 + k]} * matrices.b[n * 16 + k];
          sum += product;
          magnitude += std::abs(product);
        }
        const u32 bits = result[m * 8 + n];
        const double got = mma.f16_accumulators ? f16_to_float(static_cast<u16>(bits))
                                                : std::bit_cast<float>(bits);
        const double bound = magnitude * (mma.f16_accumulators ? 0x1p-11 : 0) + magnitude * 0x1p-20;
        CHECK(std::abs(got - sum) <= bound, mma.opcode(), m, n, got, sum);
      }
    }
  }
}

/// D in C's registers, in the same order and in another; D in A's and B's registers; C as
/// immediates.
void test_registers() {
  for (const Mma& mma : all_forms()) {
    const Matrices matrices = normals(mma, 11);
    const u32 first_c = mma.num_a() + mma.num_b();
    for (const u32 first_d : {first_c, first_c - 1, first_c + 1, 0u, 1u}) {
      CHECK(run(mma, matrices, first_d) == expected(mma, matrices), mma.opcode(), first_d);
    }
  }
  const Mma mma;
  Matrices matrices = normals(mma, 12);
  const std::vector<Values> inputs = fragments(mma, matrices);
  const auto out = run_ptx({.body = load(6) + mma.opcode() + R"(
      {%r20, %r21, %r22, %r23}, {%r0, %r1, %r2, %r3}, {%r4, %r5},
      {0f00000000, 0f3f800000, 0f00000000, 0f3f800000};
      cvt.u64.u32 %out0, %r20;
      cvt.u64.u32 %out1, %r21;)",
                            .inputs = {inputs.begin(), inputs.begin() + 6},
                            .num_outputs = 2});
  for (u32 i = 0; i < 128; ++i) matrices.c[i] = i % 2 == 0 ? 0 : 1;
  const auto want = expected(mma, matrices);
  for (u32 lane = 0; lane < 32; ++lane) {
    const Place place = place_of_c(lane, 0);
    CHECK(out[0][lane] == want[place.row * 8 + place.column], lane);
    CHECK(out[1][lane] == want[place.row * 8 + place.column + 1], lane);
  }
}

void test_refused() {
  const std::string operands =
      " {%r6, %r7, %r8, %r9}, {%r0, %r1, %r2, %r3}, {%r4, %r5}, "
      "{%r6, %r7, %r8, %r9};\n";
  const auto error = [](const std::string& lines, u32 num_threads = 32) {
    std::string text = ".reg .b32 %r<32>;\n.reg .pred %q;\nmov.b64 %out0, 0;\n";
    for (u32 i = 0; i < 10; ++i) text += "mov.b32 %r" + std::to_string(i) + ", 0;\n";
    return error_of(
        [&] { run_ptx({.body = text + lines, .inputs = {}, .block = {num_threads, 1, 1}}); });
  };
  const std::string line = Mma{}.opcode() + operands;
  CHECK(error(line).empty(), error(line));
  CHECK(contains(error(line, 24), {"other threads do not exist or have exited", "lanes 0-23"}));
  CHECK(contains(error("setp.eq.u32 %q, %tid, 3;\n@%q exit;\n" + line), {"or have exited"}));
  CHECK(contains(error("setp.eq.u32 %q, %tid, 3;\n@%q " + line), {"guard is false"}));
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string text = line;
    text.replace(text.find(from), from.size(), to);
    return error(text);
  };
  CHECK(contains(replaced("%r0, %r1", "%r0, %r30"), {"never written"}));
  CHECK(contains(replaced("{%r0, ", "{"), {"a vector of 4 registers expected, not of 3"}));
  CHECK(contains(replaced("{%r4, %r5}", "%r4"), {"is no vector"}));
  CHECK(contains(replaced("m16n8k16", "m16n8k4"), {"'.m16n8k4' is not known here"}));
  CHECK(contains(replaced(".bf16.bf16.", ".bf16.f16."), {"'.f16' is not known here"}));
  CHECK(contains(replaced(".row.col.", ".row.row."), {"'.row' is not known here"}));
}

void test_counts() {
  Counts counts;
  run({.k = 8}, {}, 20, &counts);
  CHECK(counts.mma_flops == 2 * 16 * 8 * 8, counts.mma_flops);
  counts = {};
  run({.k = 16}, {}, 20, &counts);
  CHECK(counts.mma_flops == 2 * 16 * 8 * 16, counts.mma_flops);
}

// ---- All instruction sets give the same bits ---------------------------------------------------

struct Tile {
  alignas(64) std::array<float, 256> a;
  alignas(64) std::array<float, 16 * kMaxTileColumns> b;
  std::array<std::array<u32, 32>, 128> d;
};

/// Multiplies the bytes of 16-bit elements as an instruction does.
void multiply(const MultiplyKernels& kernels, const std::vector<u16>& elements, Element element,
              u32 num_columns, bool b_is_mn_major, Tile& tile) {
  std::vector<u32> chunks(32 + 2 * num_columns), registers(num_columns / 2);
  for (u32 i = 0; i < chunks.size(); ++i) chunks[i] = 16 * i;
  for (u32 i = 0; i < registers.size(); ++i) registers[i] = 128 * i;
  alignas(64) std::array<float, 256> by_rows;
  const auto* const bytes = reinterpret_cast<const u8*>(elements.data());
  kernels.convert(bytes, std::span(chunks).first(32), element, by_rows.data());
  kernels.transpose(by_rows.data(), tile.a.data());
  kernels.convert(bytes, std::span(chunks).subspan(32), element, tile.b.data());
  const AccumulatorRegisters d = {reinterpret_cast<u8*>(tile.d.data()), registers.data()};
  TileProduct product;
  product.a = tile.a.data();
  product.b = tile.b.data();
  product.b_is_mn_major = b_is_mn_major;
  product.num_columns = num_columns;
  product.accumulates = true;
  product.c = d;
  product.d = d;
  kernels.multiply(product);
}

u32 want(const std::vector<u16>& elements, Element element, u32 num_columns, bool b_is_mn_major,
         u32 reg, u32 lane, float before) {
  const auto value = [&](u32 i) {
    return element == Element::kBf16 ? bf16_to_float(elements[i]) : f16_to_float(elements[i]);
  };
  const u32 row = lane / 4 + 8 * (reg / 2 % 2), column = 8 * (reg / 4) + lane % 4 * 2 + reg % 2;
  float sum = 0;
  for (u32 k = 0; k < 16; ++k) {
    const u32 b = b_is_mn_major ? k * num_columns + column : column * 16 + k;
    sum = std::fma(value(row * 16 + k), value(256 + b), sum);
  }
  sum += before;
  return std::isnan(sum) ? 0x7fffffffu : std::bit_cast<u32>(sum);
}

void test_instruction_sets() {
  std::mt19937 random(5);
  for (const MultiplyKernels& kernels : multiply_kernels()) std::cout << kernels.name << '\n';
  for (u32 i = 0; i < 24; ++i) {
    const Element element = i % 2 == 0 ? Element::kBf16 : Element::kF16;
    const u32 num_columns = 8 * (1 + i * 5 % 32);
    const bool b_is_mn_major = i / 2 % 2 != 0;
    std::vector<u16> elements(256 + 16 * num_columns);
    // All bit patterns: NaN, infinities, subnormals; every third round only numbers near 1.
    for (u16& bits : elements) {
      bits = static_cast<u16>(random());
      if (i % 3 == 0) bits = static_cast<u16>((bits & 0x83ff) | 0x3c00);
    }
    for (const MultiplyKernels& kernels : multiply_kernels()) {
      Tile tile;
      for (u32 reg = 0; reg < 128; ++reg) {
        for (u32 lane = 0; lane < 32; ++lane) {
          tile.d[reg][lane] = std::bit_cast<u32>(0.1f * static_cast<float>(reg) - 3);
        }
      }
      multiply(kernels, elements, element, num_columns, b_is_mn_major, tile);
      u32 wrong = 0;
      for (u32 reg = 0; reg < num_columns / 2; ++reg) {
        for (u32 lane = 0; lane < 32; ++lane) {
          wrong += tile.d[reg][lane] != want(elements, element, num_columns, b_is_mn_major, reg,
                                             lane, 0.1f * static_cast<float>(reg) - 3);
        }
      }
      CHECK(wrong == 0, kernels.name, i, wrong);
    }
  }
}

}  // namespace

int main() {
  test_values();
  test_registers();
  test_refused();
  test_counts();
  test_instruction_sets();
  CHECK_FORMS("mma");
  return finish();
}
