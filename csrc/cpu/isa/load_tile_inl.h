// Making a tile's rows readable: conversion, packing of bf16 pairs, gathering.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/isa/values_inl.h"

namespace minference::cpu {
namespace {

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

/// Not gathered: scattered rows that need no conversion. Copying 256 of them to scratch, against
/// TLB misses in the product, made column tiles 2 to 4 % slower.
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
