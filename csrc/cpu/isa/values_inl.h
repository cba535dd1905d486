// out^T += V^T P^T: the second matrix product of attention.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/isa/scores_inl.h"

namespace minference::cpu {
namespace {

// bf16 pairs: panels of 16 words (elements of head_dim_v), each [pairs of keys][16], so that one
// cache line feeds two micro-kernel heights. 2 extra pairs keep panels off a 4 KiB stride, where
// all of them would fall into one L1 set (5.5 % of the time instead of 1.8 %).
constexpr int kPanelWords = 16;
constexpr int64_t kPanelStride = (kTileKeys / 2 + 2) * kPanelWords;

/// Words per value row in scratch: padded off a 4 KiB stride likewise.
constexpr int64_t scratch_row_words(int head_dim) { return head_dim + 16; }

/// `steps` rows of P^T from `row` on, against values at base[step * stride].
struct ValueSpan {
  const float* base;
  int64_t stride;
  int64_t steps;
  int64_t row;
};

/// kCount elements of out^T += V^T P^T over all spans.
template <typename Math, int kCount>
[[gnu::noinline]] void add_values_group(const ValueSpan* spans, int num_spans, int64_t offset,
                                        const float* probabilities, bool fresh, float* out) {
  F acc[kCount][kRegs];
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kRegs; ++j) {
      acc[i][j] = fresh ? Simd::zero() : Simd::load(out + i * kRows + j * kLanes);
    }
  }
  for (int s = 0; s < num_spans; ++s) {
    const float* value = spans[s].base + offset;
    const float* p_row = probabilities + spans[s].row * kRows;
    for (int64_t k = 0; k < spans[s].steps; ++k) {
      F p[kRegs];
#pragma GCC unroll 4
      for (int j = 0; j < kRegs; ++j) p[j] = Simd::load(p_row + j * kLanes);
#pragma GCC unroll 8
      for (int i = 0; i < kCount; ++i) {
        const F v = Simd::broadcast_word(reinterpret_cast<const char*>(value + i));
#pragma GCC unroll 4
        for (int j = 0; j < kRegs; ++j) acc[i][j] = multiply_add<Math>(p[j], v, acc[i][j]);
      }
      value += spans[s].stride;
      p_row += kRows;
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kRegs; ++j) Simd::store(out + i * kRows + j * kLanes, acc[i][j]);
  }
}

/// Where the scored slots' values lie; neighbours that continue each other become one span.
template <typename Math>
int value_spans(const Tile& tile, const ScoredTile& scored, ValueSpan* spans) {
  int num_spans = 0;
  for (int i = 0; i < scored.num_slots; ++i) {
    const ScoredSlot& slot = scored.slots[i];
    const ValueSlot& values = tile.values[slot.slot];
    ValueSpan span{values.base, values.stride, slot.count, slot.first_row};
    if constexpr (Math::kPairs) {
      span.steps = slot.padded / 2;
      span.row = slot.first_row / 2;
    }
    if (num_spans > 0) {
      ValueSpan& before = spans[num_spans - 1];
      if (before.stride == span.stride && before.row + before.steps == span.row &&
          before.base + before.steps * before.stride == span.base) {
        before.steps += span.steps;
        continue;
      }
    }
    spans[num_spans++] = span;
  }
  return num_spans;
}

template <typename Math>
void add_values(Unit& unit, const Tile& tile, const ScoredTile& scored, const float* probabilities,
                int head_dim_v) {
  ValueSpan spans[kTileSlots];
  const int num_spans = value_spans<Math>(tile, scored, spans);
  for (int d = 0; d < head_dim_v;) {
    const int height = group_height(head_dim_v - d);
    const int64_t offset =
        Math::kPairs ? d / kPanelWords * kPanelStride + d % kPanelWords : int64_t{d};
    float* out = unit.out + d * kRows;
    if (height == Simd::kKeys) {
      add_values_group<Math, Simd::kKeys>(spans, num_spans, offset, probabilities, unit.fresh, out);
    } else {
      add_values_group<Math, 4>(spans, num_spans, offset, probabilities, unit.fresh, out);
    }
    d += height;
  }
}

/// Adds the values that load_values kept out, to the rows that see their keys. Rare, so scalar.
template <typename Math>
[[gnu::noinline]] void add_non_finite_values(Unit& unit, const AttendArgs& args,
                                             const ScoredTile& scored, const float* scores) {
  const Tile& tile = *args.tile;
  for (int i = 0; i < tile.num_non_finite; ++i) {
    const NonFiniteKey& key = tile.non_finite[i];
    for (int u = 0; u < scored.num_slots; ++u) {
      if (scored.slots[u].slot != key.slot || key.entry >= scored.slots[u].count) continue;
      const int32_t position = tile.position[key.slot * kBlock + key.entry];
      const bool kept = (tile.slots[key.slot].keep[unit.stream] >> key.entry) & 1;
      const int32_t last = last_row_to_see(position, args.visibility);
      const float* score = scores + (scored.slots[u].first_row + key.entry) * kRows;
      for (int lane = 0; lane < unit.num_rows; ++lane) {
        const int32_t row = unit.position[lane];
        if (!kept || row < position || (row > last && row < args.visibility.dense_from)) continue;
        const float p = __builtin_exp2f(score[lane] * args.scale_log2 - unit.row_max[lane]);
        const auto* value = static_cast<const typename Math::Element*>(key.value_row);
        for (int d = 0; d < args.head_dim_v; d += kLanes) {
          const int n = min_of(kLanes, args.head_dim_v - d);
          float v[kLanes];
          Simd::store(v, Math::load(value + d, n));
          for (int e = 0; e < n; ++e) unit.out[(d + e) * kRows + lane] += p * v[e];
        }
      }
    }
  }
}

}  // namespace
}  // namespace minference::cpu
