// out^T += V^T P^T, the second matrix product of attention; and how a tile's rows are loaded.
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

/// Where the scored slots' values lie. Slots whose values are consecutive become one span.
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

// ---- Loading a tile: conversion, packing of bf16 pairs, gathering.

template <typename Math>
bool row_is_finite(const void* row, int head_dim) {
  const auto* p = static_cast<const typename Math::Element*>(row);
  bool finite = true;
  for (int d = 0; d < head_dim; d += kLanes) {
    finite &= Simd::all_finite(Math::load(p + d, min_of(kLanes, head_dim - d)));
  }
  return finite;
}

/// Takes non-finite value rows out of a masked slot. Returns whether there were any.
template <typename Math>
bool set_non_finite_aside(Tile& tile, int slot, int head_dim_v) {
  bool any = false;
  for (int t = 0; t < tile.slots[slot].count; ++t) {
    const void*& row = tile.value_row[slot * kBlock + t];
    if (row_is_finite<Math>(row, head_dim_v)) continue;
    tile.non_finite[tile.num_non_finite++] = {slot, t, row};
    row = kZeroRow;
    any = true;
  }
  return any;
}

template <typename Math>
void convert_row(const void* row, int head_dim, float* converted) {
  const auto* p = static_cast<const typename Math::Element*>(row);
  for (int d = 0; d < head_dim; d += kLanes) {
    const int n = min_of(kLanes, head_dim - d);
    Simd::store_words(converted + d, Math::load(p + d, n), n);
  }
}

/// Scattered rows that need no conversion are not gathered: copying 256 of them to scratch, to
/// avoid TLB misses in the product, made column tiles 2 to 4 % slower.
template <typename Math>
void load_keys(Tile& tile, Scratch& scratch, int32_t head_dim) {
  if constexpr (Math::kConverts) {
    for (int s = 0; s < tile.num_slots; ++s) {
      for (int t = 0; t < tile.slots[s].count; ++t) {  // Padding stays kZeroRow, zero in any type.
        const int key = s * kBlock + t;
        float* converted = scratch.keys + key * scratch_row_words(head_dim);
        convert_row<Math>(tile.key_row[key], head_dim, converted);
        tile.key_row[key] = converted;
      }
    }
  }
}

template <typename Math>
void pack_value_pairs(Tile& tile, int slot, int32_t head_dim_v, float* panels) {
  const void* const* row = tile.value_row + slot * kBlock;
  const int padded = round_up_4(tile.slots[slot].count);
  for (int t = 0; t < padded; t += 2) {
    const auto* even = static_cast<const uint16_t*>(row[t]);
    const auto* odd = static_cast<const uint16_t*>(row[t + 1]);
    float* words = panels + t / 2 * kPanelWords;
    int d = 0;
    for (; d + 2 * kPanelWords <= head_dim_v; d += 2 * kPanelWords, words += 2 * kPanelStride) {
      Math::Vectors::interleave_rows(even + d, odd + d, words, words + kPanelStride);
    }
    if (d < head_dim_v) {
      Math::Vectors::interleave_row_ends(even + d, odd + d, head_dim_v - d, words,
                                         words + kPanelStride);
    }
  }
}

template <typename Math>
void load_values(Tile& tile, Scratch& scratch, int32_t head_dim_v) {
  tile.num_non_finite = 0;
  for (int s = 0; s < tile.num_slots; ++s) {
    const Slot& slot = tile.slots[s];
    const bool replaced = slot.masked && set_non_finite_aside<Math>(tile, s, head_dim_v);
    if constexpr (Math::kPairs) {
      float* panels = scratch.values + s * (kBlock / 2) * kPanelWords;
      pack_value_pairs<Math>(tile, s, head_dim_v, panels);
      tile.values[s] = {panels, kPanelWords};
    } else if (!Math::kConverts && slot.contiguous && !replaced) {
      tile.values[s] = {static_cast<const float*>(tile.value_row[s * kBlock]), tile.value_stride};
    } else {
      const int64_t stride = scratch_row_words(head_dim_v);
      float* rows = scratch.values + s * kBlock * stride;
      for (int t = 0; t < slot.count; ++t) {
        convert_row<Math>(tile.value_row[s * kBlock + t], head_dim_v, rows + t * stride);
      }
      tile.values[s] = {rows, stride};
    }
  }
}

template <typename Math>
ScratchSizes scratch_sizes(int32_t head_dim) {
  const auto rows = static_cast<std::size_t>(kTileKeys * scratch_row_words(head_dim));
  const auto panels = static_cast<std::size_t>((head_dim + 31) / 32 * 2 * kPanelStride);
  return {.scores = std::size_t{kTileKeys} * kRows,
          .probabilities = std::size_t{kTileKeys} * kRows,
          .keys = Math::kConverts ? rows : 0,
          .values = Math::kPairs ? panels : rows};
}

}  // namespace
}  // namespace minference::cpu
