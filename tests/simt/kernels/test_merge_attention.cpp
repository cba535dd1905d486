// sm80's merge_attention() on emulated threads, and the C function over it. Every element, on the
// GPU and on the CPU, is the float64 formula rounded, within the error of the float32 arithmetic
// inside. Where a part has no keys the two agree bit for bit.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "merge_call.h"
#include "simt/simt.h"
#include "test_tensor.h"

namespace {

using namespace minference;
using namespace minference::test;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr double kUnit = 0x1p-24;  // Half an ulp of float32.

/// The two lse are close, far apart, or one or both are -inf.
struct LsePair {
  float a, b;
};

LsePair random_lse(std::mt19937& random) {
  std::normal_distribution<float> near(0, 5);
  const float a = near(random), b = near(random);
  switch (random() % 8) {
    case 0:
      return {-kInf, b};
    case 1:
      return {a, -kInf};
    case 2:
      return {-kInf, -kInf};
    case 3:
      return {a, a + 30 * b};
    case 4:
      return {a + 1000, a};
    case 5:
      return {a, a};
    default:
      return {a, b};
  }
}

/// Normal numbers with zeros of both signs; a row without keys is all NaN.
void fill(const Problem& p, const Rows<uint16_t>& out, int64_t b, int64_t t, int64_t h, float lse,
          std::mt19937& random) {
  std::uniform_int_distribution<int> steps(-127, 127);
  for (int64_t d = 0; d < p.head_dim; ++d) {
    const double value = std::ldexp(steps(random), -static_cast<int>(random() % 12));
    uint16_t bits = encode_16(value, p.mantissa_bits());
    if (value == 0 && random() % 2 == 0) bits = 0x8000;
    out.at(b, t, h)[d] = lse == -kInf ? 0x7fff : bits;
  }
  mark_written(out, b, t, h, p.head_dim);
}

void fill(const Problem& p, const Tensors& x, std::mt19937& random) {
  for_each_row(p, [&](int64_t b, int64_t t, int64_t h) {
    const LsePair lse = random_lse(random);
    *x.lse_a.at(b, t, h) = lse.a;
    *x.lse_b.at(b, t, h) = lse.b;
    mark_written(x.lse_a, b, t, h, 1);
    mark_written(x.lse_b, b, t, h, 1);
    fill(p, x.out_a, b, t, h, lse.a, random);
    fill(p, x.out_b, b, t, h, lse.b, random);
  });
}

// ---- The definition
// ------------------------------------------------------------------------------

/// Rounds to the nearest number of the dtype, ties to even.
double round_to_dtype(const Problem& p, double x) {
  if (x == 0) return 0;
  const double ulp = std::ldexp(1, std::max(std::ilogb(x), p.min_exponent()) - p.mantissa_bits());
  return std::nearbyint(x / ulp) * ulp;
}

/// Weights of the two parts, and a relative bound for float32 arithmetic. With e = exp(-d), where d
/// is the distance of the two lse; e is in [0, 1]:
///   e      its exponent is rounded once, which is d units of e; expf: 2 ulp, 4 units
///   1 + e  e times that, and a rounding
///   weights and their products with elements: a rounding each; the sum of the products: one.
/// A weight below float32's normal numbers is off by less than 2^-147.
struct Shares {
  double a, b, error_a, error_b;
};

constexpr double kTinyShare = 0x1p-147;

Shares shares_of(double lse_a, double lse_b) {
  if (lse_a == -kInf || lse_b == -kInf) {
    return {lse_a == -kInf ? 0.0 : 1.0, lse_b == -kInf ? 0.0 : 1.0, 0, 0};
  }
  const double d = std::abs(lse_a - lse_b), e = std::exp(-d);
  const double error_e = (d + 4) * kUnit, error_big = e * error_e + 4 * kUnit;
  const double big = 1 / (1 + e), small = e / (1 + e);
  if (lse_a >= lse_b) return {big, small, error_big, error_big + error_e};
  return {small, big, error_big + error_e, error_big};
}

/// Values before the call, which may overwrite them in place.
struct Row {
  std::vector<uint16_t> a, b;
  float lse_a, lse_b;
};

void check_element(const Problem& p, const Row& row, int64_t d, uint16_t got, uint16_t from_cpu) {
  const auto i = static_cast<std::size_t>(d);
  const Shares shares = shares_of(row.lse_a, row.lse_b);
  const double a = shares.a == 0 ? 0 : decode_16(row.a[i], p.mantissa_bits()) * shares.a;
  const double b = shares.b == 0 ? 0 : decode_16(row.b[i], p.mantissa_bits()) * shares.b;
  const bool whole = row.lse_a == -kInf || row.lse_b == -kInf;
  const double tiny = whole ? 0 : 256 * kTinyShare;  // Elements are below 256.
  const double error = std::abs(a) * shares.error_a + std::abs(b) * shares.error_b + tiny;
  const double low = round_to_dtype(p, a + b - error), high = round_to_dtype(p, a + b + error);
  const double value = decode_16(got, p.mantissa_bits());
  CHECK(low <= value && value <= high, p.name, "dim", d, "got", value, "of", low, high, "lse",
        row.lse_a, row.lse_b);
  if (whole) CHECK(got == from_cpu, p.name, "dim", d, "got", got, "the CPU", from_cpu);
  const double cpu_value = decode_16(from_cpu, p.mantissa_bits());
  // The CPU's bfloat16 instructions flush subnormals to 0.
  if (cpu_value == 0 && std::abs(a + b) < 0x1p-126) return;
  CHECK(low <= cpu_value && cpu_value <= high, p.name, "the CPU's, dim", d, cpu_value, low, high);
}

/// max + log(1 + e): the error of e above times e / (1 + e); log1pf: 2 ulp, 4 units; the sum: one
/// rounding.
void check_lse(const Problem& p, const Row& row, float got, float from_cpu) {
  if (row.lse_a == -kInf || row.lse_b == -kInf) {
    const float other = std::max(row.lse_a, row.lse_b);
    CHECK(got == other && from_cpu == other, p.name, got, from_cpu, "wanted", other);
    return;
  }
  const double max = std::max(row.lse_a, row.lse_b);
  const double d = max - std::min(row.lse_a, row.lse_b), e = std::exp(-d);
  const double exact = max + std::log1p(e);
  const double before_rounding = ((d + 4) * e / (1 + e) + 4 * std::log1p(e)) * kUnit + kTinyShare;
  const double bound = before_rounding + (std::abs(exact) + before_rounding) * kUnit;
  CHECK(std::abs(got - exact) <= bound, p.name, "lse", got, "wanted", exact);
  CHECK(std::abs(from_cpu - exact) <= bound, p.name, "the CPU's lse", from_cpu, "wanted", exact);
}

/// Elements between the rows must be unchanged.
template <typename T>
int64_t num_canaries(const Rows<T>& rows) {
  const uint32_t bits = kCanary;
  // Compares bits, not values.
  const auto is_canary = [&](const T& x) {
    return std::memcmp(&x, &bits, sizeof x) == 0;  // NOLINT(bugprone-suspicious-memory-comparison)
  };
  return std::count_if(rows.memory.span().begin(), rows.memory.span().end(), is_canary);
}

void check_padding(const Problem& p, const Tensors& x) {
  const auto rows = int64_t{p.batch} * p.seqlen * p.heads;
  const auto& out = out_of(p, x);
  const auto& lse = lse_of(p, x);
  CHECK(num_canaries(out) >= static_cast<int64_t>(out.memory.size()) - rows * p.head_dim, p.name);
  CHECK(num_canaries(lse) >= static_cast<int64_t>(lse.memory.size()) - rows, p.name);
}

void check(const Problem& p, uint32_t seed) {
  std::mt19937 random(seed);
  const Tensors x(p);
  fill(p, x, random);
  const Expected expected(p, x);
  std::vector<Row> before;
  for_each_row(p, [&](int64_t b, int64_t t, int64_t h) {
    const uint16_t *a_row = x.out_a.at(b, t, h), *b_row = x.out_b.at(b, t, h);
    before.push_back({{a_row, a_row + p.head_dim},
                      {b_row, b_row + p.head_dim},
                      *x.lse_a.at(b, t, h),
                      *x.lse_b.at(b, t, h)});
  });
  merge(p, x);
  std::size_t idx = 0;
  for_each_row(p, [&](int64_t b, int64_t t, int64_t h) {
    const Row& row = before[idx++];
    const uint16_t* const got = out_of(p, x).at(b, t, h);
    for (int64_t d = 0; d < p.head_dim; ++d) {
      check_element(p, row, d, got[d], expected.out.at(b, t, h)[d]);
    }
    check_lse(p, row, *lse_of(p, x).at(b, t, h), *expected.lse.at(b, t, h));
  });
  check_padding(p, x);
}

// ---- Special values
// ------------------------------------------------------------------------------

/// Maps every NaN to one value.
double class_of(double x) { return std::isnan(x) ? 1e99 : x; }

/// Every pair of lse, one per token, with infinities and NaN among the elements. NaN, infinities
/// and zeros must be where the CPU has them.
void test_special_values(DType dtype) {
  const float values[] = {-kInf, -3e38f, -200, 0, 1, 3e38f, kInf, kNan};
  const auto count = static_cast<int32_t>(std::size(values));
  const Problem p{.name = "special values",
                  .dtype = dtype,
                  .batch = 1,
                  .seqlen = count * count,
                  .heads = 1,
                  .head_dim = 8};
  const int bits = p.mantissa_bits();
  const auto infinity = static_cast<uint16_t>(((1 << (15 - bits)) - 1) << bits);
  const uint16_t one = encode_16(1, bits), nan = 0x7fff;
  const uint16_t elements_a[] = {infinity, nan, one, infinity, 0x8000, 0x8000, one, 0};
  const uint16_t elements_b[] = {one,    one, nan,      static_cast<uint16_t>(infinity | 0x8000),
                                 0x8000, 0,   infinity, 0x8000};
  const Tensors x(p);
  for_each_row(p, [&](int64_t b, int64_t t, int64_t h) {
    std::copy(std::begin(elements_a), std::end(elements_a), x.out_a.at(b, t, h));
    std::copy(std::begin(elements_b), std::end(elements_b), x.out_b.at(b, t, h));
    *x.lse_a.at(b, t, h) = values[t / count];
    *x.lse_b.at(b, t, h) = values[t % count];
    mark_written(x.out_a, b, t, h, 8), mark_written(x.out_b, b, t, h, 8);
    mark_written(x.lse_a, b, t, h, 1), mark_written(x.lse_b, b, t, h, 1);
  });
  const Expected expected(p, x);
  merge(p, x);
  for_each_row(p, [&](int64_t b, int64_t t, int64_t h) {
    const float a = values[t / count], c = values[t % count];
    for (int64_t d = 0; d < 8; ++d) {
      const double got = decode_16(x.out.at(b, t, h)[d], bits);
      const double wanted = decode_16(expected.out.at(b, t, h)[d], bits);
      if (std::isfinite(wanted) && wanted != 0) {
        CHECK(std::abs(got - wanted) <= std::abs(wanted) * std::ldexp(1, -bits), a, c, d, got);
      } else {
        CHECK(class_of(got) == class_of(wanted), "lse", a, c, "dim", d, got, "wanted", wanted);
      }
    }
    const float got = *x.lse.at(b, t, h), wanted = *expected.lse.at(b, t, h);
    if (std::isfinite(wanted)) {
      CHECK(std::abs(got - wanted) <= std::abs(wanted) * 4 * kUnit, "lse", a, c, got, wanted);
    } else {
      CHECK(class_of(got) == class_of(wanted), "lse", a, c, got, wanted);
    }
  });
}

/// All heads and tokens share one part: stride 0.
void test_shared_part() {
  const Problem p{.name = "stride 0", .batch = 1};
  Tensors x(p);
  std::mt19937 random(3);
  fill(p, x, random);
  for_each_row(p, [&](int64_t b, int64_t t, int64_t h) {
    fill(p, x.out_a, b, t, h, /*lse=*/0, random);
    fill(p, x.out_b, b, t, h, /*lse=*/0, random);
    *x.lse_a.at(b, t, h) = *x.lse_b.at(b, t, h) = 2;
  });
  x.out_b.token_stride = x.out_b.head_stride = x.lse_b.head_stride = 0;
  const Expected expected(p, x);
  merge(p, x);
  for_each_row(p, [&](int64_t b, int64_t t, int64_t h) {
    const uint16_t* const got = x.out.at(b, t, h);
    // Equal weights are exact.
    CHECK(std::equal(got, got + p.head_dim, expected.out.at(b, t, h)), b, t, h);
  });
}

const Problem kProblems[] = {
    {.name = "bfloat16"},
    {.name = "float16", .dtype = DType::kFloat16},
    {.name = "one row", .batch = 1, .seqlen = 1, .heads = 1},
    {.name = "one row of 8", .batch = 1, .seqlen = 1, .heads = 1, .head_dim = 8},
    {.name = "head_dim 8", .seqlen = 53, .head_dim = 8},  // 530 rows, 256 a tile.
    {.name = "head_dim 80", .dtype = DType::kFloat16, .seqlen = 41, .head_dim = 80},
    {.name = "head_dim 128", .heads = 8, .head_dim = 128},
    {.name = "head_dim 248", .head_dim = 248},
    {.name = "head_dim 256", .dtype = DType::kFloat16, .seqlen = 13, .head_dim = 256},
    {.name = "one head", .batch = 3, .seqlen = 71, .heads = 1},
    {.name = "one token", .batch = 3, .seqlen = 1, .heads = 33},
    {.name = "heads first",
     .a = Layout::kHeadsFirst,
     .b = Layout::kHeadsFirst,
     .out = Layout::kHeadsFirst},
    {.name = "padded", .a = Layout::kPadded, .b = Layout::kPadded, .out = Layout::kPadded},
    {.name = "layouts of their own",
     .head_dim = 80,
     .a = Layout::kPadded,
     .b = Layout::kHeadsFirst,
     .out = Layout::kTokensFirst},
    {.name = "out heads first, others not",
     .dtype = DType::kFloat16,
     .head_dim = 16,
     .b = Layout::kPadded,
     .out = Layout::kHeadsFirst},
    {.name = "into a", .in_place = InPlace::kA},
    {.name = "into b", .dtype = DType::kFloat16, .head_dim = 80, .in_place = InPlace::kB},
    {.name = "out into a, lse into b",
     .a = Layout::kPadded,
     .b = Layout::kHeadsFirst,
     .in_place = InPlace::kOutAAndLseB},
    {.name = "into a, heads first",
     .head_dim = 256,
     .a = Layout::kHeadsFirst,
     .b = Layout::kPadded,
     .in_place = InPlace::kA},
    {.name = "the C function", .a = Layout::kPadded, .through = Through::kCApi},
    {.name = "the C function, into b",
     .dtype = DType::kFloat16,
     .b = Layout::kHeadsFirst,
     .in_place = InPlace::kB,
     .through = Through::kCApi},
    {.name = "no batch", .batch = 0, .through = Through::kCApi},
    {.name = "no rows", .seqlen = 0, .through = Through::kCApi},
};

}  // namespace

int main() {
  for (const Problem& problem : kProblems) check(problem, /*seed=*/1);
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) test_special_values(dtype);
  test_shared_part();
  simt::options().schedule = simt::Schedule::kRandom;
  for (uint32_t seed = 2; seed < 5; ++seed) {
    simt::options().seed = seed;
    for (const Problem& problem : kProblems) check(problem, seed);
  }
  CHECK(simt::num_allocations() == 0, simt::num_allocations());
  return finish();
}
