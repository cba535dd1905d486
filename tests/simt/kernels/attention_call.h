// An attention call with random inputs and key sets in emulated device memory: its arguments, and
// its float64 result.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "attended_keys.h"
#include "core/backend.h"
#include "device_array.h"
#include "random_heads.h"
#include "vertical_slash_call.h"

namespace minference::test {

struct AttentionCase {
  const char* name;
  DType dtype = DType::kBFloat16;
  int32_t head_dim = 64;
  int32_t head_dim_v = 64;
  int32_t batch = 1;
  int32_t num_heads_q = 5;
  int32_t num_heads_kv = 1;
  int32_t seqlen_q = 200;
  int32_t seqlen_k = 200;
  Layout layout = Layout::kTokens;
  double scale = 0;  // 0: head_dim^-0.5.
  bool zero_scale = false;
  bool wants_lse = true;
  int32_t resident_blocks =
      1;  // Few: row blocks are joined. 0: the device's count: keys are split.
  RandomListSizes lists = {.columns = 60, .runs = 4, .blocks = 3};
  std::vector<HeadKeys> patterns = {};  // Per head; empty: random. NOLINT(*-redundant-member-init)

  Shape shape() const {
    return {.dtype = dtype,
            .batch = batch,
            .num_heads_q = num_heads_q,
            .num_heads_kv = num_heads_kv,
            .head_dim = head_dim,
            .head_dim_v = head_dim_v,
            .lengths = {.seqlen_q = seqlen_q, .seqlen_k = seqlen_k}};
  }
};

/// Machine epsilon of a dtype: twice the largest rounding error.
inline double epsilon_of(DType dtype) { return dtype == DType::kBFloat16 ? 0x1p-7 : 0x1p-10; }

class AttentionCall {
 public:
  explicit AttentionCall(const AttentionCase& c, uint64_t seed = 1, bool spoilt = false)
      : case_(c),
        random_(seed),
        heads(c.shape(), c.lists, spoilt, seed),
        q(tensor_case(c, c.head_dim), c.seqlen_q, c.num_heads_q, random_),
        k(tensor_case(c, c.head_dim), c.seqlen_k, c.num_heads_kv, random_),
        v(tensor_case(c, c.head_dim_v), c.seqlen_k, c.num_heads_kv, random_) {
    if (!c.patterns.empty()) {
      heads.patterns = c.patterns;
      for (std::size_t i = 0; i < heads.patterns.size(); ++i) {
        heads.patterns[i].list_head = static_cast<int32_t>(i);
      }
    }
  }

  double scale() const {
    if (case_.zero_scale) return 0;
    return case_.scale != 0 ? case_.scale : 1 / std::sqrt(case_.head_dim);
  }

  struct Row {
    std::vector<double> out, magnitude;  // magnitude: sum_j p_j |v_j|.
    double lse;
  };

  Row expected_row(const HeadKeys& keys, int32_t b, int32_t h, int32_t row) const {
    const Lengths lengths = case_.shape().lengths;
    const int32_t kv = h / (case_.num_heads_q / case_.num_heads_kv);
    const auto dim_v = static_cast<std::size_t>(case_.head_dim_v);
    Row result{.out = std::vector<double>(dim_v),
               .magnitude = std::vector<double>(dim_v),
               .lse = -std::numeric_limits<double>::infinity()};
    std::vector<int32_t> attended;
    std::vector<double> scores;
    for (int32_t j = 0; j < case_.seqlen_k; ++j) {
      if (!attends(keys, lengths, row, j)) continue;
      double score = 0;
      for (int32_t d = 0; d < case_.head_dim; ++d)
        score += q.get(b, h, row, d) * k.get(b, kv, j, d);
      attended.push_back(j);
      scores.push_back(score * scale());
    }
    if (attended.empty()) return result;
    const double max = *std::ranges::max_element(scores);
    double sum = 0;
    for (const double score : scores) sum += std::exp(score - max);
    for (std::size_t i = 0; i < attended.size(); ++i) {
      const double p = std::exp(scores[i] - max) / sum;
      for (std::size_t d = 0; d < dim_v; ++d) {
        const double value = v.get(b, kv, attended[i], static_cast<int32_t>(d));
        result.out[d] += p * value;
        result.magnitude[d] += p * std::abs(value);
      }
    }
    result.lse = max + std::log(sum);
    return result;
  }

 private:
  static Case tensor_case(const AttentionCase& c, int32_t dim) {
    return {
        .name = c.name, .dtype = c.dtype, .head_dim = dim, .batch = c.batch, .layout = c.layout};
  }

  const AttentionCase case_;
  std::mt19937_64 random_;

 public:
  RandomHeads heads;
  Tensor q, k, v;
};

}  // namespace minference::test
