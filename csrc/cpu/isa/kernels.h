// The boundary between the CPU drivers (one build, any processor) and the vector kernels (one build
// per instruction set): plain structs and a table of functions per (instruction set, dtype).
//
// Orientation: SIMD lanes are query rows. A unit is kRows rows; q^T, out^T and the scores are
// [.][kRows], and keys are broadcast against them. So K is read in place through one pointer per
// key (one kernel serves contiguous, strided, unaligned and gathered keys), softmax is vertical,
// and a row's result depends on nothing but its own lane.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/backend.h"
#include "core/key_tiles.h"
#include "core/pattern.h"
#include "minference/minference.h"

namespace minference::cpu {

inline constexpr int kMaxHeadDim = MINF_MAX_HEAD_DIM;
inline constexpr int kMaxRows = 32;   // Largest unit of any instruction set.
inline constexpr int kTileSlots = 4;  // 256 keys a tile: within 2 % of the best for 64 to 512.
inline constexpr int kTileKeys = kTileSlots * kBlock;
inline constexpr int kMaxStreams = 4;  // Row blocks that one item computes together.

/// 1 KiB of zeros, which absent keys and rows point at.
extern const float kZeroRow[kMaxHeadDim];

/// Up to kRows query rows, usually of one head; several heads that attend the same keys share a
/// unit when there are few rows. Lanes past num_rows compute on zeros and are never stored.
struct Unit {
  float* query = nullptr;  // [head_dim / words per float][kRows]: fp32, or bf16 pairs.
  float* out = nullptr;    // [head_dim_v][kRows], not yet divided by row_sum.
  int32_t num_rows = 0;
  int32_t stream = 0;        // Which of the item's row blocks: selects keys in a tile.
  int32_t min_position = 0;  // Over the valid lanes.
  int32_t max_position = 0;
  bool fresh = true;                    // No tile attended yet: out is not initialised.
  alignas(64) float row_max[kMaxRows];  // log2 units; -FLT_MAX before the first visible key.
  alignas(64) float row_sum[kMaxRows];  // Of 2^(score - row_max).
  alignas(64) int32_t position[kMaxRows];
  const void* query_row[kMaxRows];
  void* out_row[kMaxRows];
  float* lse[kMaxRows];  // Null: not wanted.
};

/// 64 keys of a tile.
struct Slot {
  int32_t count = 0;           // Keys, 1 to 64.
  uint8_t streams = 0;         // Bit s: stream s attends (some of) the slot.
  bool contiguous = false;     // Consecutive tokens: rows are token_stride apart.
  bool masked = false;         // Some key is not for all rows, or padding follows the keys.
  uint64_t keep[kMaxStreams];  // Bit t: the stream attends key t.
};

/// What rows may see apart from causality, for a_shape and tri_shape. With window INT32_MAX,
/// everything.
struct Visibility {
  int32_t sink = 0;
  int32_t window = INT32_MAX;
  int32_t dense_from = INT32_MAX;  // Rows at or after this position see all keys.
};

/// Where the matrix product with P finds the values of a slot: element d of key t is
/// base[t * stride + d]; bf16 pairs are packed in panels instead (kernels_inl.h).
struct ValueSlot {
  const float* base = nullptr;
  int64_t stride = 0;
};

/// A key of a masked slot whose value row holds NaN or inf. It is kept out of the matrix product,
/// where a zero probability would still poison the rows that do not see it, and added row by row.
struct NonFiniteKey {
  int32_t slot;
  int32_t entry;
  const void* value_row;
};

/// Keys loaded once for all units of an item. The driver fills slots, positions and row pointers,
/// each slot padded to a multiple of 4 keys with kZeroRow at position INT32_MAX; load_keys and
/// load_values redirect the pointers and fill the rest where the arithmetic needs it.
struct Tile {
  int32_t num_slots = 0;
  Slot slots[kTileSlots];
  alignas(64) int32_t position[kTileKeys];  // Of slot s, entry t: [64 s + t].
  const void* key_row[kTileKeys];
  const void* value_row[kTileKeys];
  int64_t value_stride = 0;  // Elements between consecutive tokens.

  ValueSlot values[kTileSlots];
  int32_t num_non_finite = 0;
  NonFiniteKey non_finite[kTileKeys];
};

/// Work memory of one thread, for load_keys, load_values and everything that reads a tile.
struct Scratch {
  float* scores = nullptr;         // [kTileKeys][kRows]
  float* probabilities = nullptr;  // [kTileKeys][kRows]
  float* keys = nullptr;           // Converted K rows.
  float* values = nullptr;         // Converted, gathered or packed V.
};

/// Floats of each array of a Scratch.
struct ScratchSizes {
  std::size_t scores;
  std::size_t probabilities;
  std::size_t keys;
  std::size_t values;
};

struct AttendArgs {
  const Tile* tile = nullptr;
  const Tile* ahead = nullptr;  // The next tile, whose rows attend prefetches to L2; null: none.
  Visibility visibility;
  float scale_log2 = 1;  // |softmax_scale| * log2(e), or 1 when the scale is 0 (q is zeroed then).
  int32_t head_dim = 0;
  int32_t head_dim_v = 0;  // Only attend reads it.
};

/// Sign of the scale, applied to the query as it is packed: exact, and keeps max(scores) a max.
enum class QuerySign : int32_t { kPositive, kNegative, kZero };

/// Pitch of the buffer that lines diagonals up: row t holds key t's scores of 64 query rows from
/// column 63 - t on, so that column c holds distance c - 63 + (first row's position - first key).
/// 127 columns, padded so that the buffer's rows do not fall into one L1 set.
inline constexpr int kSkewPitch = 144;
inline constexpr int kSkewColumns = 2 * kBlock - 1;

struct KernelTable {
  int32_t rows;  // kRows: rows of a unit; divides 64.

  /// `head_dim` is that of the rows to hold: of keys for .keys, of values for .values.
  ScratchSizes (*scratch_sizes)(int32_t head_dim);
  /// Fills unit.query from unit.query_row, and clears the row statistics.
  void (*pack_query)(Unit& unit, int32_t head_dim, QuerySign sign);
  /// Converts the tile's keys where the arithmetic needs it.
  void (*load_keys)(Tile& tile, Scratch& scratch, int32_t head_dim);
  /// Packs, converts or gathers the tile's values where the arithmetic needs it.
  void (*load_values)(Tile& tile, Scratch& scratch, int32_t head_dim_v);
  /// One step of online softmax: adds the tile to unit.out and the row statistics.
  void (*attend)(Unit& unit, const AttendArgs& args, Scratch& scratch);
  /// Writes out / row_sum and the natural-log lse of the valid lanes.
  void (*finish)(const Unit& unit, int32_t head_dim_v);

  // ---- Estimation. Slots are contiguous.

  /// Adds the tile to row_max and row_sum, without out.
  void (*add_row_statistics)(Unit& unit, const AttendArgs& args, Scratch& scratch);
  /// For a tile of one slot: P = 2^(score - row_offset), then column_sums[key] += sum over the
  /// unit's rows, and skew[key][63 - key + first_row + lane] = P. If P is not finite, 0 is used.
  void (*add_score_sums)(const Unit& unit, const AttendArgs& args, const float* row_offset,
                         int32_t first_row, float* column_sums, float* skew, Scratch& scratch);
  /// diagonals[c] += sum of column c over the 64 rows of skew; c < 127.
  void (*add_diagonals)(const float* skew, float* diagonals);
  /// mean[d] = average over `count` rows, fp32.
  void (*mean_of_rows)(const void* first_row, int64_t row_stride, int32_t count, int32_t head_dim,
                       float* mean);
  /// scores[key][lane] = query . key, nothing masked. num_keys is a multiple of 4. Unscaled.
  void (*score_keys)(const Unit& unit, const void* const* key_row, int32_t num_keys,
                     int32_t head_dim, float* scores);

  // ---- Merge

  /// out = a * weight_a + b * weight_b over head_dim elements; a part of weight 0 is not read.
  void (*merge_row)(const void* a, float weight_a, const void* b, float weight_b, void* out,
                    int32_t head_dim);
};

/// One instruction set: its name, and a table per dtype.
struct IsaKernels {
  const char* name;
  const KernelTable* tables[3];  // By DType.
};

#if defined(__x86_64__)
const IsaKernels& avx512_bf16_kernels();
const IsaKernels& avx512_kernels();
const IsaKernels& avx2_kernels();
#endif
const IsaKernels& portable_kernels();

/// The kernels of the forced instruction set, else of the best that this machine has.
const KernelTable& kernels_for(DType dtype);

}  // namespace minference::cpu
