// The definition of sparse attention, row by row in double, and the comparison with it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "fuzz_call.h"
#include "fuzz_input.h"

namespace fuzz {

/// Lists of stages 1 and 2, for heads whose pattern needs them.
struct IndexLists {
  Tensor vertical, runs, run_count, blocks;
};

/// Whether K(h, r) holds key `j`, for row `i`; ignores causality.
inline bool attends(const Sizes& sizes, const minf_pattern& pattern, const IndexLists& lists,
                    int64_t batch, int64_t head, int64_t i, int64_t j) {
  const int64_t offset = sizes.seqlen_k - sizes.seqlen_q;
  const int64_t end = i / kBlock * kBlock + kBlock + offset;
  switch (pattern.kind) {
    case MINF_TRI_SHAPE:
      return i >= sizes.seqlen_q - pattern.as.tri_shape.last || j < pattern.as.tri_shape.sink ||
             i + offset - j < pattern.as.tri_shape.window;
    case MINF_A_SHAPE:
      return j < pattern.as.a_shape.sink || i + offset - j < pattern.as.a_shape.window;
    case MINF_VERTICAL_SLASH:
      for (int64_t n = 0; n < lists.vertical.size(2); ++n) {
        if (lists.vertical.integer<int32_t>({batch, head, n}) == j) return true;
      }
      for (int64_t n = 0; n < lists.run_count.integer<int32_t>({batch, head}); ++n) {
        const int64_t lo = lists.runs.integer<int32_t>({batch, head, n, 0});
        const int64_t hi = lists.runs.integer<int32_t>({batch, head, n, 1});
        if (end - hi <= j && j < end - lo) return true;
      }
      return false;
    case MINF_BLOCK_SPARSE:
      for (int64_t n = 0; n < lists.blocks.size(3); ++n) {
        if (lists.blocks.integer<int32_t>({batch, head, i / kBlock, n}) == j / kBlock) return true;
      }
      return false;
    default:
      return true;
  }
}

/// Makes a drawn key that no row attends non-finite. Nothing may change.
inline void poison_unattended_key(Input& input, const Sizes& sizes,
                                  const std::vector<minf_pattern>& patterns,
                                  const IndexLists& lists, Inputs& inputs) {
  if (sizes.batch * sizes.seqlen_k == 0 || inputs.is_broadcast || !input.one_in(4)) return;
  const int64_t batch = input.below(sizes.batch), j = input.below(sizes.seqlen_k);
  const int64_t head_kv = input.below(sizes.num_heads_kv);
  const int64_t group = sizes.num_heads_q / sizes.num_heads_kv;
  for (int64_t head = head_kv * group; head < (head_kv + 1) * group; ++head) {
    for (int64_t i = 0; i < sizes.seqlen_q; ++i) {
      if (j <= i + sizes.seqlen_k - sizes.seqlen_q &&
          attends(sizes, pattern_of(patterns, head), lists, batch, head, i, j)) {
        return;
      }
    }
  }
  for (int64_t d = 0; d < sizes.head_dim; ++d) {
    inputs.k.set_value({batch, j, head_kv, d}, std::numeric_limits<float>::quiet_NaN());
  }
  for (int64_t d = 0; d < sizes.head_dim_v; ++d) {
    inputs.v.set_value({batch, j, head_kv, d}, std::numeric_limits<float>::quiet_NaN());
  }
}

/// Compares one row of out and lse with its definition.
inline void check_row(const Sizes& sizes, const minf_pattern& pattern, const Inputs& inputs,
                      const IndexLists& lists, double scale, const Tensor& out, const Tensor& lse,
                      int64_t batch, int64_t head, int64_t i) {
  const int64_t head_kv = head / (sizes.num_heads_q / sizes.num_heads_kv);
  double score_error = 0;  // Error of a float32 dot product: eps per addition, in any order.
  double row_max = -kInfinity;
  std::vector<std::pair<int64_t, double>> scores;
  for (int64_t j = 0; j <= i + sizes.seqlen_k - sizes.seqlen_q; ++j) {
    if (!attends(sizes, pattern, lists, batch, head, i, j)) continue;
    double score = 0, magnitude = 0;
    for (int64_t d = 0; d < sizes.head_dim; ++d) {
      const double term =
          inputs.q.value({batch, i, head, d}) * inputs.k.value({batch, j, head_kv, d});
      score += term;
      magnitude += std::fabs(term);
    }
    if (!std::isfinite(score)) return;  // The poisoned row: any result is allowed.
    score_error = std::max(score_error, 0x1p-23 * static_cast<double>(sizes.head_dim + 8) *
                                            magnitude * std::fabs(scale));
    scores.emplace_back(j, score * scale);
    row_max = std::max(row_max, score * scale);
  }

  double row_sum = 0;
  for (const auto& [j, score] : scores) row_sum += std::exp(score - row_max);
  const double got_lse = lse.value({batch, head, i});
  const double want_lse = scores.empty() ? -kInfinity : row_max + std::log(row_sum);
  FUZZ_REQUIRE(scores.empty() ? got_lse == -kInfinity
                              : std::fabs(got_lse - want_lse) <=
                                    1e-5 * std::max(1.0, std::fabs(want_lse)) + score_error);

  // P is rounded once to the dtype and out once more; twice that leaves room for float32 parts.
  const double eps = sizes.dtype == MINF_FLOAT32   ? 0x1p-20
                     : sizes.dtype == MINF_FLOAT16 ? 0x1p-10
                                                   : 0x1p-7;
  for (int64_t d = 0; d < sizes.head_dim_v; ++d) {
    double want = 0, magnitude = 0;
    for (const auto& [j, score] : scores) {
      const double term =
          std::exp(score - row_max) / row_sum * inputs.v.value({batch, j, head_kv, d});
      want += term;
      magnitude += std::fabs(term);
    }
    // 1e-6: the smallest fp16 is 6e-8, and a smaller P counts as 0.
    const double bound = (4 * eps + 2 * score_error) * magnitude + 1e-6;
    FUZZ_REQUIRE(std::fabs(out.value({batch, i, head, d}) - want) <= bound);
  }
}

/// Compares drawn rows of heads whose keys are known: from `lists`, or without any.
inline void check_attention(Input& input, const Sizes& sizes,
                            const std::vector<minf_pattern>& patterns, const Inputs& inputs,
                            const IndexLists& lists, double scale, const Tensor& out,
                            const Tensor& lse) {
  if (sizes.batch * sizes.seqlen_q == 0) return;
  for (int64_t head = 0; head < sizes.num_heads_q; ++head) {
    const minf_pattern& pattern = pattern_of(patterns, head);
    if (pattern.kind == MINF_VERTICAL_SLASH && lists.vertical.is_absent()) continue;
    if (pattern.kind == MINF_BLOCK_SPARSE && lists.blocks.is_absent()) continue;
    for (int i = 0; i < 4; ++i) {
      // Masks go wrong at the edges of row blocks, so half of the rows are drawn there.
      int64_t row = input.below(sizes.seqlen_q);
      if (i % 2 == 0) row = std::min(row / kBlock * kBlock + kBlock, sizes.seqlen_q) - 1;
      check_row(sizes, pattern, inputs, lists, scale, out, lse, input.below(sizes.batch), head,
                row);
    }
  }
}

/// Attention is a mean of values: no row may leave the range of v, whatever was selected.
inline void check_range(const Sizes& sizes, const Tensor& out, const Tensor& lse) {
  for (int64_t b = 0; b < sizes.batch; ++b) {
    for (int64_t h = 0; h < sizes.num_heads_q; ++h) {
      for (int64_t i = 0; i < sizes.seqlen_q; ++i) {
        const double row_lse = lse.value({b, h, i});
        FUZZ_REQUIRE(std::isfinite(row_lse) || row_lse == -kInfinity);
        for (int64_t d = 0; d < sizes.head_dim_v; ++d) {
          FUZZ_REQUIRE(std::fabs(out.value({b, i, h, d})) <= 1.02);
        }
      }
    }
  }
}

}  // namespace fuzz
