// The vector kernels, written once over a `Simd` and compiled once per instruction set.
//
// Included by isa/<name>.cpp after the simd_*.h that defines
//   F, Mask            a vector of kLanes floats, and a lane mask
//   kLanes, kRegs      a unit is kRows = kLanes * kRegs query rows
//   kKeys              height of the micro-kernels (keys in QK, elements of head_dim in PV)
//   kHasPairs          dot_pairs, round_pairs, interleave_rows: bf16 dot products
// and arithmetic under the same names. Everything here is in an unnamed namespace, and nothing of
// the standard library is called (builtins instead): two instruction sets must never share a symbol
// that the linker could fold.
//
// Per tile and unit:
//     S^T[key][row] = K q^T, masked        score_slots     max per row in the same registers
//     raise row_max where it grew a lot    raise_maxima    the only rescaling of out
//     P^T = 2^(S^T scale - row_max)        exponentiate
//     out^T[d][row] += V^T P^T             add_values
//
// Source: online softmax as in FlashAttention-2 (arXiv:2307.08691), transposed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cfloat>
#include <climits>

#include "cpu/isa/kernels.h"

namespace minference::cpu {
namespace {

using F = Simd::F;
constexpr int kLanes = Simd::kLanes;
constexpr int kRegs = Simd::kRegs;
constexpr int kRows = kLanes * kRegs;
static_assert(kRows <= kMaxRows && kBlock % kRows == 0);

// Rescale a row only when its maximum grew by more than this, in log2 units: P stays below 2^8, and
// out and row_sum share the maximum, so the result is exact. 0 would cost 1 % in bf16.
constexpr float kMaxSlack = 8.0f;

constexpr float kInfinity = __builtin_inff();

constexpr int round_up_4(int x) { return (x + 3) & ~3; }

// ---------------------------------------------------------------- arithmetic per dtype

struct Float32 {
  using Element = float;
  static constexpr bool kPairs = false;
  static constexpr bool kConverts = false;
  static constexpr int kExpDegree = 5;
  static F load(const Element* p, int n) { return Simd::load_words(p, n); }
  static void store(Element* p, F x, int n) { Simd::store_words(p, x, n); }
};

/// 16-bit tensors, fp32 arithmetic: K and V tiles are converted once for all units of an item.
struct BFloat16 {
  using Element = uint16_t;
  static constexpr bool kPairs = false;
  static constexpr bool kConverts = true;
  static constexpr int kExpDegree = 4;
  static F load(const Element* p, int n) { return Simd::load_bfloat16(p, n); }
  static void store(Element* p, F x, int n) { Simd::store_bfloat16(p, x, n); }
};

struct Float16 {
  using Element = uint16_t;
  static constexpr bool kPairs = false;
  static constexpr bool kConverts = true;
  static constexpr int kExpDegree = 4;
  static F load(const Element* p, int n) { return Simd::load_float16(p, n); }
  static void store(Element* p, F x, int n) { Simd::store_float16(p, x, n); }
};

/// bf16 dot products: a word is two neighbours along the summed dimension. K rows already are such
/// words (pairs along head_dim); V is packed into pairs of keys, P rounded to pairs of keys.
struct BFloat16Pairs : BFloat16 {
  using Vectors = Simd;  // A dependent name: only where kHasPairs must the pair functions exist.
  static constexpr bool kPairs = true;
  static constexpr bool kConverts = false;
};

template <typename Math>
F multiply_add(F a, F b, F acc) {
  if constexpr (Math::kPairs) {
    return Math::Vectors::dot_pairs(a, b, acc);
  } else {
    return Simd::fma(a, b, acc);
  }
}

/// Words per row of K and q^T.
template <typename Math>
constexpr int row_words(int head_dim) {
  return Math::kPairs ? head_dim / 2 : head_dim;
}

/// 2^x by a minimax polynomial in relative error on [0, 1): 2.6e-6 at degree 4 (below bf16's and
/// fp16's rounding, and good for an lse to 1e-5), 7.5e-8 at degree 5.
template <int kDegree>
F exp2(F x) {
  static constexpr float kDegree4[] = {1.0000026226f, 0.6930038333f, 0.2414427549f, 0.0520114601f,
                                       0.0135341678f};
  static constexpr float kDegree5[] = {0.9999999404f, 0.6931530833f,  0.2401536107f,
                                       0.0558263175f, 0.00898933969f, 0.00187757669f};
  const float* c = kDegree == 4 ? kDegree4 : kDegree5;
  const F fraction = Simd::fraction(x);
  F p = Simd::set1(c[kDegree]);
#pragma GCC unroll 5
  for (int i = kDegree - 1; i >= 0; --i) p = Simd::fma(p, fraction, Simd::set1(c[i]));
  return Simd::scale_by_floor(p, x);
}

// ---------------------------------------------------------------- S^T = K q^T

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

/// Rows of the tile to come, fetched while a group of keys is scored.
struct AheadRows {
  const void* const* key_row = nullptr;  // [kAheadKeys]; null: nothing to fetch.
  const void* const* value_row = nullptr;
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
    // One cache line of the next tile per step: the loop has load slots to spare, a burst has not.
    const int64_t lines = words / kLineWords;
    for (int64_t row = 0; row < 2 * kAheadKeys; ++row) {
      const auto* next = static_cast<const char*>(row % 2 == 0 ? ahead.key_row[row / 2]
                                                               : ahead.value_row[row / 2]);
      for (int64_t line = 0; line < lines; ++line) {
        __builtin_prefetch(next + line * 64, 0, 2);
        const int64_t w = row * lines + line;
        add_products<Math>(key, w, w + 1, query, acc);
      }
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

/// Height of the next micro-kernel call when `left` keys (or elements) remain: kKeys, or the tail
/// of
/// 4. `left` is even and never ends at 2: from 8, a height of 6 would leave it.
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
  score_group<Math, kCount>(key_row, words, unit.query, Bounded{bounds}, AheadRows{}, scores,
                            tile_max);
}

/// The rows to fetch beside the group at (slot, key): those in the same place of the tile to come.
template <typename Math>
AheadRows rows_ahead(const AttendArgs& args, int slot, int key) {
  const Tile* ahead = args.ahead;
  if (ahead == nullptr || slot >= ahead->num_slots || key + kAheadKeys > ahead->slots[slot].count ||
      row_words<Math>(args.head_dim) % kLineWords != 0) {
    return {};
  }
  return {ahead->key_row + slot * kBlock + key, ahead->value_row + slot * kBlock + key};
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

// ---------------------------------------------------------------- online softmax

/// Raises row_max where the tile's maximum exceeds it by more than `slack`, and rescales what was
/// accumulated under the old one. Lane by lane: a row's result never depends on its neighbours.
inline void raise_maxima(Unit& unit, const float* tile_max, float scale_log2, float slack,
                         int head_dim) {
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
    for (int d = 0; d < head_dim; ++d) {
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

// ---------------------------------------------------------------- values

// bf16 pairs: panels of 16 words (elements of head_dim), each [pairs of keys][16], so that one
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
                int head_dim) {
  ValueSpan spans[kTileSlots];
  const int num_spans = value_spans<Math>(tile, scored, spans);
  for (int d = 0; d < head_dim;) {
    const int height = group_height(head_dim - d);
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
        for (int d = 0; d < args.head_dim; d += kLanes) {
          const int n = min_of(kLanes, args.head_dim - d);
          float v[kLanes];
          Simd::store(v, Math::load(value + d, n));
          for (int e = 0; e < n; ++e) unit.out[(d + e) * kRows + lane] += p * v[e];
        }
      }
    }
  }
}

// ---------------------------------------------------------------- loading a tile

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
bool set_non_finite_aside(Tile& tile, int slot, int head_dim) {
  bool any = false;
  for (int t = 0; t < tile.slots[slot].count; ++t) {
    const void*& row = tile.value_row[slot * kBlock + t];
    if (row_is_finite<Math>(row, head_dim)) continue;
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
void pack_value_pairs(Tile& tile, int slot, int32_t head_dim, float* panels) {
  const void* const* row = tile.value_row + slot * kBlock;
  const int padded = round_up_4(tile.slots[slot].count);
  for (int t = 0; t < padded; t += 2) {
    const auto* even = static_cast<const uint16_t*>(row[t]);
    const auto* odd = static_cast<const uint16_t*>(row[t + 1]);
    float* words = panels + t / 2 * kPanelWords;
    int d = 0;
    for (; d + 2 * kPanelWords <= head_dim; d += 2 * kPanelWords, words += 2 * kPanelStride) {
      Math::Vectors::interleave_rows(even + d, odd + d, words, words + kPanelStride);
    }
    if (d < head_dim) {
      Math::Vectors::interleave_row_ends(even + d, odd + d, head_dim - d, words,
                                         words + kPanelStride);
    }
  }
}

template <typename Math>
void load_values(Tile& tile, Scratch& scratch, int32_t head_dim) {
  tile.num_non_finite = 0;
  for (int s = 0; s < tile.num_slots; ++s) {
    const Slot& slot = tile.slots[s];
    const bool replaced = slot.masked && set_non_finite_aside<Math>(tile, s, head_dim);
    if constexpr (Math::kPairs) {
      float* panels = scratch.values + s * (kBlock / 2) * kPanelWords;
      pack_value_pairs<Math>(tile, s, head_dim, panels);
      tile.values[s] = {panels, kPanelWords};
    } else if (!Math::kConverts && slot.contiguous && !replaced) {
      tile.values[s] = {static_cast<const float*>(tile.value_row[s * kBlock]), tile.value_stride};
    } else {
      const int64_t stride = scratch_row_words(head_dim);
      float* rows = scratch.values + s * kBlock * stride;
      for (int t = 0; t < slot.count; ++t) {
        convert_row<Math>(tile.value_row[s * kBlock + t], head_dim, rows + t * stride);
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
  raise_maxima(unit, tile_max, args.scale_log2, unit.fresh ? 0.0f : kMaxSlack, args.head_dim);
  exponentiate<Math>(scratch.scores, scored.num_keys, args.scale_log2, unit, scratch.probabilities);
  add_values<Math>(unit, *args.tile, scored, scratch.probabilities, args.head_dim);
  if (args.tile->num_non_finite > 0) {
    add_non_finite_values<Math>(unit, args, scored, scratch.scores);
  }
  unit.fresh = false;
}

template <typename Math>
void finish(const Unit& unit, int32_t head_dim) {
  using Element = typename Math::Element;
  for (int j = 0; j * kLanes < unit.num_rows; ++j) {
    const F row_sum = Simd::load(unit.row_sum + j * kLanes);
    // Of the maximum and every sum above it, only a row that saw no key has a sum of 0.
    const F inverse = Simd::div(Simd::set1(1.0f), row_sum);
    const auto some = Simd::greater(row_sum, Simd::zero());
    const F factor = Simd::select(some, inverse, Simd::mul(row_sum, Simd::zero()));  // 0, or NaN.
    const int lanes = min_of(kLanes, unit.num_rows - j * kLanes);
    for (int d = 0; d < head_dim; d += kLanes) {
      const int n = min_of(kLanes, head_dim - d);
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
               /*head_dim=*/0);
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
