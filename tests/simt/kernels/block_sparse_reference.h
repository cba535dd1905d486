// Block-sparse estimation by its definition (design.md 3.3), in float64: the list that each row
// block should have, and how far fp32 may be off. Also makes tensors with suitable values.
//
// A list must hold the definition's blocks wherever their scores are separated by more than the
// bound; closer ones may go either way. The bound is that of tests/python, which a GPU must also
// pass.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "core/backend.h"
#include "core/pattern.h"
#include "simt/instructions.h"

namespace minference::test {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

enum class Values { kNormal, kRising, kFalling, kEqualKeys, kFewScores };

struct Problem {
  DType dtype = DType::kBFloat16;
  int32_t batch = 1;
  int32_t heads_q = 1;
  int32_t heads_kv = 1;
  int32_t seqlen_q = 0;
  int32_t seqlen_k = 0;
  int32_t head_dim = 64;
  std::vector<int32_t> top_k = {4};  // Query heads cycle through it; 0: the head is not a target.
  double top_p = 1;
  double softmax_scale = 0.125;
  bool head_major = false;  // [batch, heads, seqlen, head_dim] in memory.
  int32_t gap = 0;          // Unused elements between rows, and unused entries between lists.
  Values values = Values::kNormal;
  uint64_t seed = 1;
  std::function<void(std::vector<double>& q, std::vector<double>& k)> edit = nullptr;

  Lengths lengths() const { return {.seqlen_q = seqlen_q, .seqlen_k = seqlen_k}; }
};

/// A [batch, seqlen, heads, head_dim] tensor with values as double, and its place in memory.
struct Tensor {
  std::vector<double> values;
  std::vector<uint16_t> bits;
  ConstTokens tokens;
  int32_t heads = 0, seqlen = 0, head_dim = 0;

  double at(int32_t b, int64_t i, int32_t h, int32_t d) const {
    return values[static_cast<std::size_t>(((b * seqlen + i) * heads + h) * head_dim + d)];
  }
};

/// Rounds to multiples of 1/64 below 4 in magnitude: exact in both dtypes.
inline double quantised(double x) { return std::clamp(std::nearbyint(x * 64), -255.0, 255.0) / 64; }

inline uint16_t encode(DType dtype, double x) {
  const auto value = static_cast<float>(x);
  return static_cast<uint16_t>(dtype == DType::kBFloat16 ? simt::pack_bf16x2(value, 0)
                                                         : simt::pack_f16x2(value, 0));
}

inline void place(Tensor& tensor, const Problem& problem) {
  const int64_t row = tensor.head_dim + (problem.gap + 7) / 8 * 8;
  ConstTokens& tokens = tensor.tokens;
  tokens.token_stride = problem.head_major ? row : row * tensor.heads;
  tokens.head_stride = problem.head_major ? row * tensor.seqlen : row;
  tokens.batch_stride = row * tensor.heads * tensor.seqlen;
  // The gaps are NaN.
  tensor.bits.assign(static_cast<std::size_t>(tokens.batch_stride * problem.batch), 0x7fff);
  for (int32_t b = 0; b < problem.batch; ++b) {
    for (int32_t i = 0; i < tensor.seqlen; ++i) {
      for (int32_t h = 0; h < tensor.heads; ++h) {
        const int64_t begin =
            b * tokens.batch_stride + i * tokens.token_stride + h * tokens.head_stride;
        for (int32_t d = 0; d < tensor.head_dim; ++d) {
          tensor.bits[static_cast<std::size_t>(begin + d)] =
              encode(problem.dtype, tensor.at(b, i, h, d));
        }
      }
    }
  }
}

inline void fill(Tensor& tensor, const Problem& problem, bool is_key, std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  tensor.values.resize(static_cast<std::size_t>(int64_t{problem.batch} * tensor.seqlen *
                                                tensor.heads * tensor.head_dim));
  std::size_t at = 0;
  for (int32_t b = 0; b < problem.batch; ++b) {
    for (int32_t i = 0; i < tensor.seqlen; ++i) {
      const int32_t block = i / kBlock, num_blocks = tensor.seqlen / kBlock + 1;
      const double place = static_cast<double>(block) / num_blocks;
      for (int32_t h = 0; h < tensor.heads * tensor.head_dim; ++h) {
        double value = normal(random);
        if (problem.values == Values::kRising || problem.values == Values::kFalling) {
          const double slope = problem.values == Values::kRising ? 2 * place : 2 - 2 * place;
          value = is_key ? slope + 0.02 * value : 1;
        } else if (problem.values == Values::kEqualKeys && is_key) {
          value = 0.5;
        } else if (problem.values == Values::kFewScores) {
          value = is_key ? (i / kBlock * 7 % 5) / 4.0 : 1;
        }
        tensor.values[at++] = quantised(value);
      }
    }
  }
}

/// Block means of one head in float64, and those of magnitudes. [blocks][head_dim]
struct Means {
  std::vector<std::vector<double>> value, magnitude;
};

inline Means means_of(const Tensor& tensor, int32_t b, int32_t h) {
  Means means;
  for (int32_t begin = 0; begin < tensor.seqlen; begin += kBlock) {
    const int32_t end = std::min(begin + kBlock, tensor.seqlen);
    std::vector<double> value(static_cast<std::size_t>(tensor.head_dim)), magnitude(value);
    for (int32_t i = begin; i < end; ++i) {
      for (int32_t d = 0; d < tensor.head_dim; ++d) {
        value[static_cast<std::size_t>(d)] += tensor.at(b, i, h, d) / (end - begin);
        magnitude[static_cast<std::size_t>(d)] += std::abs(tensor.at(b, i, h, d)) / (end - begin);
      }
    }
    means.value.push_back(value);
    means.magnitude.push_back(magnitude);
  }
  return means;
}

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t d = 0; d < a.size(); ++d) sum += a[d] * b[d];
  return sum;
}

/// Error of an fp32 sum relative to the sum of magnitudes: tests/python/reference.py.
inline double fp32_sum_error(int32_t terms) { return 2 * std::sqrt(terms) * 0x1p-24; }

/// One row block by the definition (design.md 3.3), in float64.
struct Expected {
  std::vector<double> score;      // [allowed]; -inf where it is not finite.
  std::vector<double> tolerance;  // [allowed]
  std::vector<bool> forced;
  std::vector<int32_t> list;
  bool separated = true;  // No other list is correct.
};

inline Expected expect(const Problem& problem, const Means& q, const Means& k, int32_t row_block,
                       int32_t top_k) {
  const RowBlock row(problem.lengths(), row_block);
  const int32_t allowed = row.last_position / kBlock + 1;
  const auto r = static_cast<std::size_t>(row_block);
  const double share = 2 * fp32_sum_error(kBlock) + fp32_sum_error(problem.head_dim);
  Expected expected;
  std::vector<int32_t> order;
  for (int32_t n = 0; n < allowed; ++n) {
    const auto block = static_cast<std::size_t>(n);
    const double score = dot(q.value[r], k.value[block]);
    expected.score.push_back(std::isfinite(score) ? score : -kInfinity);
    expected.tolerance.push_back(
        std::isfinite(score) ? share * dot(q.magnitude[r], k.magnitude[block]) : 0);
    expected.forced.push_back(n == 0 || n >= row.first_position / kBlock);
    order.push_back(n);
  }
  const auto key = [&](int32_t n) { return expected.score[static_cast<std::size_t>(n)]; };
  const auto is_forced = [&](int32_t n) -> bool {
    return expected.forced[static_cast<std::size_t>(n)];
  };
  // With top_p the order is that of the weights.
  const double factor = problem.top_p < 1 ? problem.softmax_scale : 1;
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    if (is_forced(a) != is_forced(b)) return is_forced(a);
    if (is_forced(a)) return false;
    const bool none_a = key(a) == -kInfinity, none_b = key(b) == -kInfinity;
    return none_a || none_b ? none_b && !none_a : factor * key(a) > factor * key(b);
  });
  auto kept = static_cast<std::size_t>(std::min(top_k, allowed));
  if (problem.top_p < 1) {
    double largest = -kInfinity, total = 0, sum = 0;
    for (int32_t n : order) {
      if (key(n) > -kInfinity) largest = std::max(largest, problem.softmax_scale * key(n));
    }
    const auto mass = [&](int32_t n) {  // If nothing is finite, all weigh the same.
      if (largest == -kInfinity) return 1.0;
      return key(n) == -kInfinity ? 0 : std::exp(problem.softmax_scale * key(n) - largest);
    };
    for (const int32_t n : order) total += mass(n);
    std::size_t first = 0;
    for (; first < order.size() && is_forced(order[first]); ++first) sum += mass(order[first]);
    const double budget = problem.top_p * total;
    const auto near = [&] { return std::abs(sum - budget) < 2e-5 * total; };
    std::size_t reached = first;
    if (near()) expected.separated = false;
    while (reached < kept && sum < budget) {
      sum += mass(order[reached++]);
      if (near()) expected.separated = false;
    }
    kept = std::min(kept, reached);
  }
  // Equal scores have equal bits, whichever implementation computes them, so rounding cannot break
  // ties.
  const bool exact =
      factor == 0 || problem.values == Values::kEqualKeys || problem.values == Values::kFewScores;
  // Apart from the cut, order does not matter.
  double low = kInfinity, high = -kInfinity;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto n = static_cast<std::size_t>(order[i]);
    if (expected.forced[n] || expected.score[n] == -kInfinity) continue;
    const double score = factor * expected.score[n];
    const double tolerance = exact ? 0 : std::abs(factor) * expected.tolerance[n];
    if (i < kept) low = std::min(low, score - tolerance);
    if (i >= kept) high = std::max(high, score + tolerance);
  }
  if (exact ? low < high : low <= high) expected.separated = false;
  expected.list.assign(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(kept));
  std::sort(expected.list.begin(), expected.list.end());
  return expected;
}

/// Accepts a list that differs from the expected one only where scores are too close to tell.
inline bool acceptable(const std::vector<int32_t>& list, const Expected& expected, bool by_mass) {
  if (list == expected.list) return true;
  if (expected.separated) return false;
  if (by_mass) return true;  // Cases close to the budget were left out of the comparison.
  if (list.size() != expected.list.size() || !std::is_sorted(list.begin(), list.end()))
    return false;
  double low = kInfinity, high = -kInfinity;
  for (std::size_t n = 0; n < expected.score.size(); ++n) {
    const bool kept = std::binary_search(list.begin(), list.end(), static_cast<int32_t>(n));
    if (expected.forced[n]) {
      if (!kept) return false;
    } else if (kept) {
      low = std::min(low, expected.score[n] + expected.tolerance[n]);
    } else {
      high = std::max(high, expected.score[n] - expected.tolerance[n]);
    }
  }
  return low >= high;
}

}  // namespace minference::test
