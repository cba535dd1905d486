// The vector kernels, written once over a `Simd` and compiled once per instruction set.
//
// Included by kernels.cpp after the simd_*.h that defines
//   F, Mask            a vector of kLanes floats, and a lane mask
//   kLanes, kRegs      a unit is kRows = kLanes * kRegs query rows
//   kKeys              height of the micro-kernels (keys in QK, elements of head_dim_v in PV)
//   kHasPairs          dot_pairs, round_pairs, interleave_rows: bf16 dot products
// and arithmetic under the same names. Everything here is in an unnamed namespace, and nothing of
// the standard library is called (builtins instead): two instruction sets must never share a symbol
// that the linker could fold.
//
// Per tile and unit:
//     S^T[key][row] = K q^T, masked         score_slots    row maxima in the same loop
//     raise row_max where it grew a lot     raise_maxima   the only rescaling of out
//     P^T = 2^(S^T scale - row_max)         exponentiate
//     out^T[d][row] += V^T P^T              add_values
//
// Source: online softmax as in FlashAttention-2 (arXiv:2307.08691), transposed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cfloat>

#include "cpu/isa/scores_inl.h"
#include "cpu/isa/values_inl.h"

namespace minference::cpu {
namespace {

// ---------------------------------------------------------------- a unit's life

template <typename Math>
void pack_query(Unit& unit, int32_t head_dim, QuerySign sign) {
  using Element = typename Math::Element;
  const uint32_t sign_bits = Math::kPairs ? 0x80008000u : 0x80000000u;
  const uint32_t and_bits = sign == QuerySign::kZero ? 0u : ~0u;
  const uint32_t xor_bits = sign == QuerySign::kNegative ? sign_bits : 0u;
  const int words = row_words<Math>(head_dim);
  for (int j = 0; j < kRegs; ++j) {
    for (int w = 0; w < words; w += kLanes) {
      const int n = min_of(kLanes, words - w);
      F rows[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        const void* row = unit.query_row[j * kLanes + i];
        if constexpr (Math::kPairs) {
          rows[i] = Simd::load_words(static_cast<const float*>(row) + w, n);
        } else {
          rows[i] = Math::load(static_cast<const Element*>(row) + w, n);
        }
        rows[i] = Simd::flip_bits(rows[i], and_bits, xor_bits);
      }
      Simd::transpose(rows);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        if (i < n) Simd::store(unit.query + (w + i) * kRows + j * kLanes, rows[i]);
      }
    }
  }
  for (int j = 0; j < kRegs; ++j) {
    Simd::store(unit.row_max + j * kLanes, Simd::set1(-FLT_MAX));
    Simd::store(unit.row_sum + j * kLanes, Simd::zero());
  }
  unit.fresh = true;
}

template <typename Math>
void attend(Unit& unit, const AttendArgs& args, Scratch& scratch) {
  alignas(64) float tile_max[kRows];
  clear_max(tile_max);
  const ScoredTile scored = score_slots<Math>(unit, args, /*trim=*/true, scratch.scores, tile_max);
  if (scored.num_keys == 0) return;
  raise_maxima(unit, tile_max, args.scale_log2, unit.fresh ? 0.0f : kMaxSlack, args.head_dim_v);
  exponentiate<Math>(scratch.scores, scored.num_keys, args.scale_log2, unit, scratch.probabilities);
  add_values<Math>(unit, *args.tile, scored, scratch.probabilities, args.head_dim_v);
  if (args.tile->num_non_finite > 0) {
    add_non_finite_values<Math>(unit, args, scored, scratch.scores);
  }
  unit.fresh = false;
}

template <typename Math>
void finish(const Unit& unit, int32_t head_dim_v) {
  using Element = typename Math::Element;
  for (int j = 0; j * kLanes < unit.num_rows; ++j) {
    const F row_sum = Simd::load(unit.row_sum + j * kLanes);
    // The sum includes the row's maximum, so only a row that saw no key has a sum of 0.
    const F inverse = Simd::div(Simd::set1(1.0f), row_sum);
    const auto some = Simd::greater(row_sum, Simd::zero());
    const F factor = Simd::select(some, inverse, Simd::mul(row_sum, Simd::zero()));  // 0, or NaN.
    const int lanes = min_of(kLanes, unit.num_rows - j * kLanes);
    for (int d = 0; d < head_dim_v; d += kLanes) {
      const int n = min_of(kLanes, head_dim_v - d);
      F rows[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        rows[i] = i < n && !unit.fresh
                      ? Simd::mul(Simd::load(unit.out + (d + i) * kRows + j * kLanes), factor)
                      : Simd::zero();
      }
      Simd::transpose(rows);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        if (i >= lanes) break;
        Math::store(static_cast<Element*>(unit.out_row[j * kLanes + i]) + d, rows[i], n);
      }
    }
  }
  for (int lane = 0; lane < unit.num_rows; ++lane) {
    if (unit.lse[lane] == nullptr) continue;
    const float sum = unit.row_sum[lane];
    constexpr float kLn2 = 0.693147180559945f;
    *unit.lse[lane] = sum == 0.0f ? -kInfinity : (unit.row_max[lane] + __builtin_log2f(sum)) * kLn2;
  }
}

// ---------------------------------------------------------------- estimation

template <typename Math>
void add_row_statistics(Unit& unit, const AttendArgs& args, Scratch& scratch) {
  alignas(64) float tile_max[kRows];
  clear_max(tile_max);
  const ScoredTile scored = score_slots<Math>(unit, args, /*trim=*/true, scratch.scores, tile_max);
  if (scored.num_keys == 0) return;
  raise_maxima(unit, tile_max, args.scale_log2, /*slack=*/unit.fresh ? 0.0f : kMaxSlack,
               /*head_dim_v=*/0);
  exponentiate<Math>(scratch.scores, scored.num_keys, args.scale_log2, unit, scratch.probabilities);
  unit.fresh = false;
}

template <typename Math>
void add_score_sums(const Unit& unit, const AttendArgs& args, const float* row_offset,
                    int32_t first_row, float* column_sums, float* skew, Scratch& scratch) {
  alignas(64) float tile_max[kRows];
  clear_max(tile_max);
  score_slots<Math>(unit, args, /*trim=*/false, scratch.scores, tile_max);
  const F scale = Simd::set1(args.scale_log2);
  F offset[kRegs];
#pragma GCC unroll 4
  for (int j = 0; j < kRegs; ++j) offset[j] = Simd::load(row_offset + j * kLanes);
  for (int t = 0; t < args.tile->slots[0].count; ++t) {
    F sum = Simd::zero();
    float* diagonal = skew + t * kSkewPitch + (kBlock - 1 - t) + first_row;
#pragma GCC unroll 4
    for (int j = 0; j < kRegs; ++j) {
      const F score = Simd::load(scratch.scores + t * kRows + j * kLanes);
      const F p = Simd::finite_or_zero(exp2<Math::kExpDegree>(Simd::fms(score, scale, offset[j])));
      sum = Simd::add(sum, p);
      Simd::store(diagonal + j * kLanes, p);
    }
    column_sums[t] += Simd::sum(sum);
  }
}

inline void add_diagonals(const float* skew, float* diagonals) {
  for (int c = 0; c < kSkewColumns; c += kLanes) {
    F sum = Simd::zero();
    for (int t = 0; t < kBlock; ++t) sum = Simd::add(sum, Simd::load(skew + t * kSkewPitch + c));
    float sums[kLanes];
    Simd::store(sums, sum);
    for (int i = 0; i < kLanes && c + i < kSkewColumns; ++i) diagonals[c + i] += sums[i];
  }
}

template <typename Math>
void mean_of_rows(const void* first_row, int64_t row_stride, int32_t count, int32_t head_dim,
                  float* mean) {
  const auto* rows = static_cast<const typename Math::Element*>(first_row);
  const F inverse = Simd::set1(1.0f / static_cast<float>(count));
  for (int d = 0; d < head_dim; d += kLanes) {
    const int n = min_of(kLanes, head_dim - d);
    F sum = Simd::zero();
    for (int64_t i = 0; i < count; ++i)
      sum = Simd::add(sum, Math::load(rows + i * row_stride + d, n));
    Simd::store_words(mean + d, Simd::mul(sum, inverse), n);
  }
}

template <typename Math>
void score_keys(const Unit& unit, const void* const* key_row, int32_t num_keys, int32_t head_dim,
                float* scores) {
  alignas(64) float tile_max[kRows];
  clear_max(tile_max);
  const int words = row_words<Math>(head_dim);
  for (int k = 0; k < num_keys;) {
    const int height = group_height(num_keys - k);
    float* group = scores + k * kRows;
    if (height == Simd::kKeys) {
      score_group<Math, Simd::kKeys>(key_row + k, words, unit.query, AllVisible{}, AheadRows{},
                                     group, tile_max);
    } else {
      score_group<Math, 4>(key_row + k, words, unit.query, AllVisible{}, AheadRows{}, group,
                           tile_max);
    }
    k += height;
  }
}

// ---------------------------------------------------------------- merge

template <typename Math>
void merge_row(const void* a, float weight_a, const void* b, float weight_b, void* out,
               int32_t head_dim) {
  using Element = typename Math::Element;
  for (int d = 0; d < head_dim; d += kLanes) {
    const int n = min_of(kLanes, head_dim - d);
    F sum = Simd::zero();
    if (weight_a != 0) {
      const F x = Math::load(static_cast<const Element*>(a) + d, n);
      sum = Simd::mul(x, Simd::set1(weight_a));
    }
    if (weight_b != 0) {
      const F x = Math::load(static_cast<const Element*>(b) + d, n);
      sum = Simd::fma(x, Simd::set1(weight_b), sum);
    }
    Math::store(static_cast<Element*>(out) + d, sum, n);
  }
}

template <typename Math>
constexpr KernelTable kKernels = {
    .rows = kRows,
    .scratch_sizes = scratch_sizes<Math>,
    .pack_query = pack_query<Math>,
    .load_keys = load_keys<Math>,
    .load_values = load_values<Math>,
    .attend = attend<Math>,
    .finish = finish<Math>,
    .add_row_statistics = add_row_statistics<Math>,
    .add_score_sums = add_score_sums<Math>,
    .add_diagonals = add_diagonals,
    .mean_of_rows = mean_of_rows<Math>,
    .score_keys = score_keys<Math>,
    .merge_row = merge_row<Math>,
};

/// bf16 takes the dot products where there are any.
template <bool kHasPairs>
struct BFloat16Choice {
  using Math = BFloat16;
};
template <>
struct BFloat16Choice<true> {
  using Math = BFloat16Pairs;
};

constexpr IsaKernels isa_kernels(const char* name) {
  return {name,
          {&kKernels<Float32>, &kKernels<typename BFloat16Choice<Simd::kHasPairs>::Math>,
           &kKernels<Float16>}};
}

}  // namespace
}  // namespace minference::cpu
