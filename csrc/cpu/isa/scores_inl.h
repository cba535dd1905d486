// S^T = K q^T, masked, the first of the two matrix products of attention; and the softmax step.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <climits>

#include "cpu/isa/arithmetic_inl.h"

namespace minference::cpu {
namespace {

/// Which rows see each key of a group, as bounds on the row's position.
struct KeyBounds {
  int32_t first[8];  // INT32_MAX: none.
  int32_t last[8];
  int32_t dense_from;
  const int32_t* position;  // [kRows]
};

struct AllVisible {
  F apply(F score, int /*key*/, int /*reg*/) const { return score; }
};

struct Bounded {
  const KeyBounds& bounds;
  F apply(F score, int key, int reg) const {
    const auto seen = Simd::visible(bounds.position + reg * kLanes, bounds.first[key],
                                    bounds.last[key], bounds.dense_from);
    return Simd::select(seen, score, Simd::set1(-kInfinity));
  }
};

/// Rows of the next tile, prefetched while a group of keys is scored.
struct AheadRows {
  const void* const* key_row = nullptr;  // [kAheadKeys]; null: nothing to fetch.
  const void* const* value_row = nullptr;
  int value_lines = 0;  // Cache lines to fetch of a value row; at most those of a key row.
};
constexpr int kAheadKeys = 8;
constexpr int kLineWords = 16;

/// The inner loop of the micro-kernel: words [begin, end) of kCount keys against q^T.
template <typename Math, int kCount>
[[gnu::always_inline]] inline void add_products(const char* const* key, int64_t begin, int64_t end,
                                                const float* query, F (&acc)[kCount][kRegs]) {
  for (int64_t w = begin; w < end; ++w) {
    F q[kRegs];
#pragma GCC unroll 4
    for (int j = 0; j < kRegs; ++j) q[j] = Simd::load(query + w * kRows + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
      const F k = Simd::broadcast_word(key[i] + w * 4);
#pragma GCC unroll 4
      for (int j = 0; j < kRegs; ++j) acc[i][j] = multiply_add<Math>(q[j], k, acc[i][j]);
    }
  }
}

/// Scores of kCount keys, and the running row maximum in the same registers (a pass of its own
/// would cost 2 %).
template <typename Math, int kCount, typename Masking>
[[gnu::noinline]] void score_group(const void* const* key_row, int words, const float* query,
                                   const Masking& masking, const AheadRows& ahead, float* scores,
                                   float* tile_max) {
  F acc[kCount][kRegs];
  const char* key[kCount];
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) {
    key[i] = static_cast<const char*>(key_row[i]);
#pragma GCC unroll 4
    for (int j = 0; j < kRegs; ++j) acc[i][j] = Simd::zero();
  }
  if (ahead.key_row == nullptr) {
    add_products<Math>(key, 0, words, query, acc);
  } else {
    // One cache line of the next tile per step: the loop has load slots to spare for that, but not
    // for a burst.
    const int64_t lines = words / kLineWords;
    for (int64_t row = 0; row < 2 * kAheadKeys; ++row) {
      const auto* next = static_cast<const char*>(row % 2 == 0 ? ahead.key_row[row / 2]
                                                               : ahead.value_row[row / 2]);
      const int64_t fetched = row % 2 == 0 ? lines : ahead.value_lines;
      const int64_t first = row * lines;
      for (int64_t line = 0; line < fetched; ++line) {
        __builtin_prefetch(next + line * 64, 0, 2);
        add_products<Math>(key, first + line, first + line + 1, query, acc);
      }
      add_products<Math>(key, first + fetched, first + lines, query, acc);
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < kRegs; ++j) {
    F max = Simd::load(tile_max + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
      const F score = masking.apply(acc[i][j], i, j);
      max = Simd::max(max, score);
      Simd::store(scores + i * kRows + j * kLanes, score);
    }
    Simd::store(tile_max + j * kLanes, max);
  }
}

/// Height of the next micro-kernel call when `left` keys (or elements) remain: kKeys, or 4 for the
/// tail. `left` is even and must never come to 2: from 8, a height of 6 would leave 2.
inline int group_height(int left) {
  if constexpr (Simd::kKeys == 8) return left >= 8 ? 8 : 4;
  if constexpr (Simd::kKeys == 6) return left >= 6 && left != 8 ? 6 : 4;
  return 4;
}

/// The keys of one slot that a unit scored: rows [first_row, first_row + padded) of S^T and P^T.
struct ScoredSlot {
  int slot;
  int count;   // Keys.
  int padded;  // Multiple of 4; the rest is masked.
  int first_row;
};

struct ScoredTile {
  ScoredSlot slots[kTileSlots];
  int num_slots = 0;
  int num_keys = 0;  // Padded.
};

inline int32_t last_row_to_see(int32_t key_position, const Visibility& visibility) {
  if (key_position < visibility.sink || visibility.window > INT32_MAX - key_position) {
    return INT32_MAX;
  }
  return key_position + visibility.window - 1;
}

/// Whether some row of the unit must not see some key of the group; positions ascend within it.
inline bool needs_mask(const Unit& unit, const Visibility& visibility, const int32_t* position,
                       uint64_t keep, int count) {
  if (position[count - 1] > unit.min_position) return true;
  if (keep != low_bits(count)) return true;
  // The group's oldest key outside the sink, seen from the unit's last row.
  const int32_t oldest = max_of(position[0], visibility.sink);
  return position[count - 1] >= visibility.sink &&
         unit.max_position > last_row_to_see(oldest, visibility);
}

template <typename Math, int kCount>
void score_group_of(const Unit& unit, const AttendArgs& args, const void* const* key_row,
                    const int32_t* position, uint64_t keep, bool may_mask, const AheadRows& ahead,
                    float* scores, float* tile_max) {
  const int words = row_words<Math>(args.head_dim);
  keep &= low_bits(kCount);
  if (!may_mask || !needs_mask(unit, args.visibility, position, keep, kCount)) {
    score_group<Math, kCount>(key_row, words, unit.query, AllVisible{}, ahead, scores, tile_max);
    return;
  }
  KeyBounds bounds;
  bounds.dense_from = args.visibility.dense_from;
  bounds.position = unit.position;
  for (int i = 0; i < kCount; ++i) {
    bounds.first[i] = (keep >> i) & 1 ? position[i] : INT32_MAX;
    bounds.last[i] = last_row_to_see(position[i], args.visibility);
  }
  score_group<Math, kCount>(key_row, words, unit.query, Bounded{bounds}, ahead, scores, tile_max);
}

/// The rows to prefetch with the group at (slot, key): those at the same place of the next tile.
template <typename Math>
AheadRows rows_ahead(const AttendArgs& args, int slot, int key) {
  const Tile* ahead = args.ahead;
  const int words = row_words<Math>(args.head_dim);
  if (ahead == nullptr || slot >= ahead->num_slots || key + kAheadKeys > ahead->slots[slot].count ||
      words % kLineWords != 0) {
    return {};
  }
  return {ahead->key_row + slot * kBlock + key, ahead->value_row + slot * kBlock + key,
          min_of(words, row_words<Math>(args.head_dim_v)) / kLineWords};
}

/// Scores the unit against the slots of its stream. With `trim`, keys after the unit's last row are
/// left out; else every slot is scored whole.
template <typename Math>
ScoredTile score_slots(const Unit& unit, const AttendArgs& args, bool trim, float* scores,
                       float* tile_max) {
  const Tile& tile = *args.tile;
  ScoredTile scored;
  for (int s = 0; s < tile.num_slots; ++s) {
    const Slot& slot = tile.slots[s];
    if (!((slot.streams >> unit.stream) & 1)) continue;
    const int32_t* position = tile.position + s * kBlock;
    int count = slot.count;
    if (trim && slot.masked) {
      while (count > 0 && position[count - 1] > unit.max_position) --count;
    }
    if (count == 0) continue;
    const int padded = round_up_4(count);
    const void* const* key_row = tile.key_row + s * kBlock;
    for (int k = 0; k < padded;) {
      const int height = group_height(padded - k);
      float* group_scores = scores + (scored.num_keys + k) * kRows;
      const uint64_t keep = slot.keep[unit.stream] >> k;
      const AheadRows ahead = rows_ahead<Math>(args, s, k);
      if (height == Simd::kKeys) {
        score_group_of<Math, Simd::kKeys>(unit, args, key_row + k, position + k, keep, slot.masked,
                                          ahead, group_scores, tile_max);
      } else {
        score_group_of<Math, 4>(unit, args, key_row + k, position + k, keep, slot.masked, {},
                                group_scores, tile_max);
      }
      k += height;
    }
    scored.slots[scored.num_slots++] = {s, count, padded, scored.num_keys};
    scored.num_keys += padded;
  }
  return scored;
}

inline void clear_max(float* tile_max) {
  for (int j = 0; j < kRegs; ++j) Simd::store(tile_max + j * kLanes, Simd::set1(-kInfinity));
}

// ---- Online softmax over a tile, vertically: lanes are rows. Source: FlashAttention-2
// (arXiv:2307.08691), transposed.

// A row is rescaled only when its maximum grew by more than this, in log2 units: P stays below 2^8,
// and out and row_sum share the maximum, so the result is exact. 0 would cost 1 % in bf16.
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
