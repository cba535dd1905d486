// Online softmax over a tile, vertically: lanes are rows.
// Source: FlashAttention-2 (arXiv:2307.08691), transposed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/isa/scores_inl.h"

namespace minference::cpu {
namespace {

// Rescale a row only when its maximum grew by more than this, in log2 units: P stays below 2^8, and
// out and row_sum share the maximum, so the result is exact. 0 would cost 1 % in bf16.
constexpr float kMaxSlack = 8.0f;

/// Raises row_max where the tile's maximum exceeds it by more than `slack`, and rescales what was
/// accumulated under the old one. Lane by lane: a row's result never depends on its neighbours.
inline void raise_maxima(Unit& unit, const float* tile_max, float scale_log2, float slack,
                         int head_dim_v) {
  for (int j = 0; j < kRegs; ++j) {
    const F old_max = Simd::load(unit.row_max + j * kLanes);
    const F new_max = Simd::mul(Simd::load(tile_max + j * kLanes), Simd::set1(scale_log2));
    const auto grew = Simd::greater(new_max, Simd::add(old_max, Simd::set1(slack)));
    if (!Simd::any(grew)) continue;
    const F row_max = Simd::select(grew, new_max, old_max);
    Simd::store(unit.row_max + j * kLanes, row_max);
    if (unit.fresh) continue;
    const F shrink = exp2<5>(Simd::sub(old_max, row_max));
    const F factor = Simd::select(grew, shrink, Simd::set1(1.0f));
    float* row_sum = unit.row_sum + j * kLanes;
    Simd::store(row_sum, Simd::mul(Simd::load(row_sum), factor));
    for (int d = 0; d < head_dim_v; ++d) {
      float* out = unit.out + d * kRows + j * kLanes;
      Simd::store(out, Simd::mul(Simd::load(out), factor));
    }
  }
}

/// P^T from S^T, row sums in fp32. Pairs: rows 2k and 2k + 1 become one row of bf16 pairs.
template <typename Math>
[[gnu::noinline]] void exponentiate(const float* scores, int num_keys, float scale_log2, Unit& unit,
                                    float* probabilities) {
  constexpr int kStep = Math::kPairs ? 2 : 1;
  const F scale = Simd::set1(scale_log2);
  F max[kRegs], sum[kRegs];
#pragma GCC unroll 4
  for (int j = 0; j < kRegs; ++j) {
    max[j] = Simd::load(unit.row_max + j * kLanes);
    sum[j] = Simd::load(unit.row_sum + j * kLanes);
  }
  for (int k = 0; k < num_keys; k += kStep) {
#pragma GCC unroll 4
    for (int j = 0; j < kRegs; ++j) {
      const float* s = scores + k * kRows + j * kLanes;
      F p = exp2<Math::kExpDegree>(Simd::fms(Simd::load(s), scale, max[j]));
      sum[j] = Simd::add(sum[j], p);
      if constexpr (Math::kPairs) {
        const F next = exp2<Math::kExpDegree>(Simd::fms(Simd::load(s + kRows), scale, max[j]));
        sum[j] = Simd::add(sum[j], next);
        p = Math::Vectors::round_pairs(p, next);
      }
      Simd::store(probabilities + k / kStep * kRows + j * kLanes, p);
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < kRegs; ++j) Simd::store(unit.row_sum + j * kLanes, sum[j]);
}

}  // namespace
}  // namespace minference::cpu
