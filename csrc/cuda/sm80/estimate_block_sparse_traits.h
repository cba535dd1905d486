// Compile-time shape of the thread block that scores and selects, and its shared memory. See
// estimate_block_sparse_kernel.h for the arithmetic behind the sizes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/common/pool_rows.h"
#include "cuda/device/radix_search.h"
#include "cuda/device/thread_group.h"
#include "cuda/sm80/estimate_block_sparse.h"

namespace minference::sm80::block_sparse {

/// Row blocks of a warp: the M of mma.m16n8k16, so that the scores of one never leave the warp.
inline constexpr int kWarpRows = 16;

/// Scores of one row block that a lane gets at a time: consecutive key blocks.
inline constexpr int kLaneKeys = 4;

/// Key blocks that a warp scores at a time, for its 16 row blocks: 4 lanes of a quad times
/// kLaneKeys.
inline constexpr int kGroupKeys = 16;

/// Candidates that a row block has room for. Rows of 172 words put the same place of the 8 rows
/// that a warp writes at once into different banks.
inline constexpr int kCandidates = 172;

/// The best key blocks so far of each row block, ascending.
struct CandidateStorage {
  float scores[kTileRows][kCandidates];
  uint16_t blocks[kTileRows][kCandidates];
};

/// Histograms of one digit. By count a digit has 8 bits, by mass 6: what fits in the place of the
/// candidates. One bin more, never used, shifts neighbouring rows to other banks.
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

/// Of the four warps that share a tile, which one this is. On sm80 they are the thread block.
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

template <int kPaddedDim_>
struct SelectBlocksTraits {
  static constexpr int kPaddedDim = kPaddedDim_;
  static constexpr int kSteps = kPaddedDim / cuda::kGroupDims;

  static constexpr int kWarps = kTileRows / kWarpRows;
  static constexpr int kThreads = kWarps * device::kWarpThreads;

  // What shared memory leaves room for: it is no use to save registers for more.
  static constexpr int kMinBlocks = 2;

  // 16 KiB a stage, 12 KiB at 96 and 192 dims; the next tile is under way while one is used.
  static constexpr int kTileKeys = kPaddedDim <= 64 ? 64 : kPaddedDim <= 128 ? 32 : 16;
  static constexpr int kStages = 2;
  static constexpr int kTileFragments =
      static_cast<int>(cuda::num_fragments(kTileKeys, kPaddedDim));

  struct Storage {
    alignas(128) cuda::SplitFragment keys[kStages][kTileFragments];
    SelectionStorage selection;
  };

  static_assert(kTileKeys % kGroupKeys == 0 && cuda::kPoolPadding % kTileKeys == 0);
  static_assert(kTileFragments % kThreads == 0);
  static_assert(sizeof(Storage) <= 99 * 1024, "must fit in a thread block of sm_86 and sm_89");
  static_assert(2 * (sizeof(Storage) + 1024) <= 228 * 1024, "two thread blocks per SM of sm_90");
};

}  // namespace minference::sm80::block_sparse
