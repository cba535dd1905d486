// Stage 3 on sm90: S = q K^T of a warpgroup's 64 rows, masked.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

#include "cuda/arch/wgmma.h"
#include "cuda/device/key_mask.h"
#include "cuda/sm90/attention.h"
#include "cuda/sm90/attention_traits.h"

namespace minference::sm90 {

/// Which tiles of a stage a warpgroup attends, its place in them being that of its row block.
struct AttendedTiles {
  int count;     // 0 to 2.
  int first;     // Of the stage's tiles; two follow each other.
  bool exposed;  // Some row does not attend some key that was loaded.

  __device__ AttendedTiles() : count(0), first(0), exposed(false) {}

  template <typename Traits>
  __device__ static AttendedTiles of(const StageTiles& stage, int row_block) {
    AttendedTiles attended;
#pragma unroll
    for (int i = Traits::kStageTiles - 1; i >= 0; --i) {
      const device::PairTile& tile = stage.tiles[i];
      if (!device::warp_uniform(tile.keep[row_block] != 0)) continue;
      ++attended.count;
      attended.first = i;
      attended.exposed |= device::warp_uniform(tile.mask[row_block] != 0 ||
                                               tile.keep[row_block] != low_bits(kBlock));
    }
    return attended;
  }
};

/// Scores of a thread with the keys of kTiles tiles, as wgmma leaves them: row 16 w + 8 h + g and
/// key 8 n + 2 t + e of tile i at s[32 i + 4 n + 2 h + e].
template <int kTiles>
struct Scores {
  float s[kTiles * kBlock / 2];

  __device__ float& at(int tile, int h, int n, int e) {
    return s[kBlock / 2 * tile + 4 * n + 2 * h + e];
  }
};

/// Issues, behind a fence, the products of a row block's queries with the keys of kTiles tiles of a
/// stage, from `first_tile` on.
template <typename Traits, int kTiles>
__device__ inline void multiply_keys(Scores<kTiles>& scores,
                                     const typename Traits::QueryTile& query,
                                     const typename Traits::SharedStorage& storage, int stage,
                                     int first_tile) {
  using Element = typename Traits::Element;
  constexpr uint32_t kStepBytes = 16 * sizeof(Element);
  const auto a = arch::k_major_descriptor(query, Traits::kSwizzle);
  const auto b =
      arch::k_major_descriptor(storage.keys[stage][0][first_tile * kBlock], Traits::kSwizzle);
#pragma unroll
  for (int panel = 0; panel < Traits::kPanels; ++panel) {
#pragma unroll
    for (int step = 0; step < Traits::kPanelDims / 16; ++step) {
      arch::wgmma<Element, arch::Major::kK>(
          scores.s, arch::advance(a, panel * (kBlock * Traits::kRowBytes) + step * kStepBytes),
          arch::advance(b, panel * (Traits::kStageKeys * Traits::kRowBytes) + step * kStepBytes),
          /*accumulate=*/panel > 0 || step > 0);
    }
  }
}

/// -inf where a row does not attend a key. A bit of a register per score, not a comparison.
template <int kTiles>
__device__ inline void mask_tile(Scores<kTiles>& scores, int tile, const device::KeyMask& mask,
                                 int32_t position) {
  const int t = device::lane_index() % 4;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const uint64_t bits = mask.attended(position + 8 * h) >> (2 * t);
#pragma unroll
    for (int n = 0; n < kBlock / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        if ((bits >> (8 * n + e) & 1) == 0) scores.at(tile, h, n, e) = -INFINITY;
      }
    }
  }
}

/// Masks tiles, from `first_tile` of the stage on, where they need it. `position`: of the thread's
/// first row.
template <int kTiles>
__device__ inline void mask_scores(Scores<kTiles>& scores, const Lengths& lengths,
                                   const HeadKeys& head, const StageTiles& stage, int first_tile,
                                   int row_block, int32_t position) {
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    const device::PairTile& tile = stage.tiles[first_tile + i];
    if (device::warp_uniform(tile.mask[row_block] == 0 &&
                             tile.keep[row_block] == low_bits(kBlock))) {
      continue;
    }
    mask_tile(scores, i, device::KeyMask::of(tile, row_block, head, lengths), position);
  }
}

}  // namespace minference::sm90
