// What both ways to select share: shared memory, pooled queries and scores of a lane, its row
// blocks, sums over the 4 lanes of a quad, softmax masses, and how a row block's list ends.
//
// Lane 4 g + t works for row blocks g and g + 8 of its warp's 16 (`half` 0 and 1). Data of a row
// block is in registers, with the same value in the 4 lanes of quad g.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cfloat>
#include <cstdint>

#include "cuda/arch/math.h"
#include "cuda/common/estimate_block_sparse.h"
#include "cuda/device/radix_search.h"
#include "cuda/device/thread_group.h"

namespace minference::cuda::block_sparse {

// ---- Shared memory

/// Row blocks of a warp: the M of mma.m16n8k16, so that a row block's scores stay in its warp.
inline constexpr int kWarpRows = 16;

/// Number of consecutive key blocks whose scores a lane gets at a time for one row block.
inline constexpr int kLaneKeys = 4;

/// Key blocks that a warp scores at a time for its 16 row blocks: 4 lanes of a quad times
/// kLaneKeys.
inline constexpr int kGroupKeys = 16;

/// Capacity for a row block's candidates. Rows of 172 words put the same place of the 8 rows that a
/// warp writes at once into different banks.
inline constexpr int kCandidates = 172;

/// The best key blocks so far of each row block, ascending.
struct CandidateStorage {
  float scores[kTileRows][kCandidates];
  uint16_t blocks[kTileRows][kCandidates];
};

/// Histograms of one digit. A digit has 8 bits by count and 6 by mass, which fits in the memory of
/// the candidates. An additional bin, never used, shifts neighbouring rows to other banks.
struct CountBins {
  static constexpr int kDigitBits = 8;
  int32_t counts[kTileRows][(1 << kDigitBits) + 1];
};
struct MassBins {
  static constexpr int kDigitBits = 6;
  int32_t counts[kTileRows][(1 << kDigitBits) + 1];
  unsigned long long masses[kTileRows][(1 << kDigitBits) + 1];
};

/// A row block's search for the threshold of its selection.
struct RadixRow {
  device::RadixSearch search;
  device::Threshold threshold;  // Valid once settled.
  bool settled;
};

/// The index of this warp among the four that share a tile. They are the thread block, or a
/// warpgroup of it.
__device__ inline int tile_warp() {
  return static_cast<int>(threadIdx.x) / device::kWarpThreads % (kTileRows / kWarpRows);
}

/// What a tile's selection keeps in shared memory.
struct SelectionStorage {
  union {
    CandidateStorage candidates;
    CountBins count_bins;
    MassBins mass_bins;
  };
  RadixRow rows[kTileRows];
};

// ---- Pooled queries, and scores

/// The pooled queries of a warp's 16 row blocks, as operand A: 4 * kSteps registers, twice.
template <typename Traits>
struct QueryFragments {
  uint32_t high[Traits::kSteps][4];
  uint32_t low[Traits::kSteps][4];
};

/// Scores of the lane's two row blocks (g and g + 8 of the warp's 16, lane = 4 g + t) against key
/// blocks first + 4 t .. first + 4 t + 3 of a group.
struct LaneScores {
  float of[2][kLaneKeys];
};

template <typename Traits>
__device__ inline void load_queries(QueryFragments<Traits>& queries, const SplitFragment* tile) {
  const int lane = device::lane_index();
  const int warp = tile_warp();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const SplitFragment* rows =
        tile + (2 * warp + half) * Traits::kSteps * device::kWarpThreads + lane;
#pragma unroll
    for (int step = 0; step < Traits::kSteps; ++step) {
      const SplitFragment part = rows[step * device::kWarpThreads];
#pragma unroll
      for (int word = 0; word < 2; ++word) {
        queries.high[step][2 * word + half] = part.high[word];
        queries.low[step][2 * word + half] = part.low[word];
      }
    }
  }
}

/// A sum times `multiplier`, without negative zeros. A sum that is not finite, because the row
/// block or the key block had a NaN or an infinity, becomes the lowest score: the last choice.
__device__ inline float score_of_sum(float sum, float multiplier) {
  const float score = __fmaf_rn(sum, multiplier, 0.0f);
  return fabsf(score) <= FLT_MAX ? score : -FLT_MAX;
}

// ---- Row blocks

/// The key blocks of a row block: it sees [0, allowed); 0 and [diagonal, allowed) are forced; [1,
/// end) compete for the remaining `room` places.
struct BlockRow {
  int32_t allowed = 0;  // 0: no such row block.
  int32_t diagonal = 0;
  int32_t end = 0;  // diagonal, or 0 if no places remain.
  int32_t room = 0;

  __device__ int32_t candidates() const { return end > 1 ? end - 1 : 0; }
};

__device__ inline BlockRow block_row_of(const Lengths& lengths, int32_t row_block, int32_t top_k) {
  if (row_block >= lengths.row_blocks()) return {};
  const RowBlock row(lengths, row_block);
  BlockRow result{.allowed = row.last_position / kBlock + 1,
                  .diagonal = row.first_position / kBlock};
  const int32_t forced = 1 + result.allowed - (result.diagonal > 1 ? result.diagonal : 1);
  if (top_k > forced) {
    result.end = result.diagonal;
    result.room = top_k - forced;
  }
  return result;
}

/// Index within the warpgroup's 64 row blocks of row block `half` of quad `quad` of this warp.
__device__ inline int tile_row(int half, int quad) {
  return tile_warp() * kWarpRows + half * 8 + quad;
}

/// Bit i: block first + i is a candidate.
__device__ inline uint32_t candidate_bits(int32_t first, const BlockRow& row) {
  const int32_t left = row.end - first;
  const uint32_t bits = left >= kLaneKeys ? 0xfu : left <= 0 ? 0u : (1u << left) - 1;
  return first == 0 ? bits & ~1u : bits;
}

struct QuadSum {
  uint32_t before;  // Sum over the lower lanes of the quad.
  uint32_t total;
};

/// Sums over a quad; several small counts may share a word.
__device__ inline QuadSum quad_sum(uint32_t value) {
  const int t = device::lane_index() % 4;
  uint32_t sum = value;
#pragma unroll
  for (int distance = 1; distance < 4; distance *= 2) {
    const uint32_t before = __shfl_up_sync(device::kFullWarp, sum, distance);
    if (t >= distance) sum += before;
  }
  return {.before = sum - value,
          .total = __shfl_sync(device::kFullWarp, sum, device::lane_index() | 3)};
}

// ---- Masses: 2^(score - max), with scores multiplied by softmax_scale * log2(e)

/// Masses are added in units of 2^-36, so that a sum has one value in any order; 2^24 of them fit.
inline constexpr float kMassUnits = 68719476736.0f;

__device__ inline uint64_t mass_of(uint32_t key, float max) {
  return static_cast<uint64_t>(arch::exp2_approx(device::score_of(key) - max) * kMassUnits);
}

/// The masses of the blocks that a row block sees, relative to the largest score so far.
struct RowMass {
  float max = -FLT_MAX;
  float total = 0;
  float forced = 0;

  /// Adds the scores of blocks [first, first + 4), as far as the row block sees them.
  __device__ void add(const float (&scores)[kLaneKeys], int32_t first, const BlockRow& row) {
    float larger = max;
#pragma unroll
    for (int i = 0; i < kLaneKeys; ++i) {
      if (first + i < row.allowed) larger = fmaxf(larger, scores[i]);
    }
    rescale(larger);
#pragma unroll
    for (int i = 0; i < kLaneKeys; ++i) {
      const int32_t block = first + i;
      if (block >= row.allowed) continue;
      const float mass = arch::exp2_approx(scores[i] - max);
      total += mass;
      if (block == 0 || block >= row.diagonal) forced += mass;
    }
  }

  /// Sums over the quad; all its lanes get the result.
  __device__ void add_quad() {
#pragma unroll
    for (int distance = 1; distance < 4; distance *= 2) {
      rescale(fmaxf(max, __shfl_xor_sync(device::kFullWarp, max, distance)));
      total += __shfl_xor_sync(device::kFullWarp, total, distance);
      forced += __shfl_xor_sync(device::kFullWarp, forced, distance);
    }
  }

  /// Mass, in kMassUnits, that candidates must reach for the list to hold `share` of the total.
  __device__ uint64_t wanted(double share) const {
    const double wanted = (share * total - forced) * kMassUnits;
    return wanted > 0 ? static_cast<uint64_t>(wanted) : 0;
  }

 private:
  __device__ void rescale(float larger) {
    const float factor = arch::exp2_approx(max - larger);
    total *= factor;
    forced *= factor;
    max = larger;
  }
};

/// How many equal keys of `mass` each reach `mass_left`; at most count_left.
__device__ inline int32_t ties_of(int32_t count_left, uint64_t mass_left, uint64_t mass) {
  if (mass == 0) return count_left;
  const uint64_t needed = (mass_left - 1) / mass + 1;
  return needed < static_cast<uint64_t>(count_left) ? static_cast<int32_t>(needed) : count_left;
}

// ---- Lists

/// A head's lists, and the row blocks of a warpgroup's tile.
struct TileLists {
  SelectTarget target;
  Lengths lengths;
  int32_t first_row;

  __device__ int32_t* of_row(int tile_row) const {
    return target.block_index + int64_t{first_row + tile_row} * target.row_stride;
  }
  __device__ BlockRow row(int tile_row) const {
    return block_row_of(lengths, first_row + tile_row, target.top_k);
  }
};

/// Completes a list whose `count` candidates are at entry 1 and after: adds the forced blocks, then
/// -1. One warp calls it.
__device__ inline void finish_list(const TileLists& lists, int tile_row, int32_t count) {
  const BlockRow row = lists.row(tile_row);
  if (row.allowed == 0) return;
  int32_t* list = lists.of_row(tile_row);
  const int lane = device::lane_index();
  if (lane == 0) list[0] = 0;
  const int32_t first_diagonal = row.diagonal > 1 ? row.diagonal : 1;
  const int32_t shift = first_diagonal - (1 + count);  // From entries to blocks.
  for (int32_t entry = 1 + count + lane; entry < lists.target.top_k;
       entry += device::kWarpThreads) {
    list[entry] = entry + shift < row.allowed ? entry + shift : -1;
  }
}

}  // namespace minference::cuda::block_sparse
