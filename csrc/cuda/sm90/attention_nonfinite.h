// Stage 3 on sm90: V with NaN or infinity in keys that only some rows of a tile attend.
//
// 0 * NaN is NaN, so a plain product would carry a bad V into rows that must not see it. Tiles in
// which every row attends every key need no care. Of the others a warpgroup looks at V's exponents
// before the product; if one is all ones, it multiplies by mma.sync, whose operands pass through
// registers: without the bad elements, and by ones where V is +inf (or NaN) and where it is -inf
// (or NaN), which say which sums those reach. A row whose P has become 0 in the dtype is taken not
// to attend.
//
// Both read V with ordinary loads, and TMA overwrites it once it is handed back: each thread fences
// behind its reads. Source: FlashAttention-3 and CUTLASS's TMA epilogues do so before a release.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/matrix.h"
#include "cuda/arch/named_barrier.h"
#include "cuda/arch/proxy_fence.h"
#include "cuda/device/element_pair.h"
#include "cuda/device/row_fragments.h"
#include "cuda/sm90/attention_softmax.h"

namespace minference::sm90 {

/// Whether V has a NaN or an infinity in the attended tiles of a stage. By the warpgroup; a
/// barrier.
template <typename Traits>
__device__ inline bool has_nonfinite(const typename Traits::SharedStorage& storage, int stage,
                                     const AttendedTiles& attended, int warpgroup) {
  using Pair = device::ElementPair<typename Traits::Element>;
  constexpr int kPieces = kBlock * static_cast<int>(Traits::kRowBytes) / 16;  // 16 bytes each.
  const int thread = static_cast<int>(threadIdx.x) % device::kWarpgroupThreads;
  uint32_t found = 0;
  for (int i = 0; i < attended.count; ++i) {
#pragma unroll 1
    for (int panel = 0; panel < Traits::kValuePanels; ++panel) {
      const auto* const pieces = reinterpret_cast<const uint4*>(
          storage.values[stage][panel][(attended.first + i) * kBlock]);
#pragma unroll
      for (int piece = thread; piece < kPieces; piece += device::kWarpgroupThreads) {
        const uint4 words = pieces[piece];
        found |= Pair::nonfinite(words.x) | Pair::nonfinite(words.y) | Pair::nonfinite(words.z) |
                 Pair::nonfinite(words.w);
      }
    }
  }
  arch::fence_proxy_async();  // The reads come before what overwrites the stage.
  return arch::named_barrier_or(kConsumerBarrier + warpgroup, device::kWarpgroupThreads,
                                found != 0);
}

/// B of mma.m16n8k16, rows along keys: keys [16 k, 16 k + 16) of the values at `rows`, of whose
/// panel dims [16 n, 16 n + 16) are the 8 columns each of b[0], b[1].
template <typename Traits>
__device__ inline void load_values(uint32_t (&b)[2][2], const void* rows, int k, int n) {
  const int lane = device::lane_index();
  const auto offset = static_cast<uint32_t>(
      (16 * k + lane % 16) * static_cast<int>(Traits::kRowBytes) + (16 * n + lane / 16 * 8) * 2);
  uint32_t words[4];
  arch::ldmatrix_x4_transposed(
      words, arch::shared_address(rows) + arch::swizzle_offset(Traits::kSwizzle, offset));
  device::split_columns(b, words);
}

/// add_values() for values that has_nonfinite(), which leaves nothing of p. No product may be under
/// way. Rare: a loop that hands p on from register to register, rather than the code of all steps.
template <typename Traits>
__device__ inline void add_nonfinite_values(RowState<Traits>& rows, Probabilities<Traits>& p,
                                            const typename Traits::SharedStorage& storage,
                                            int stage, const AttendedTiles& attended) {
  constexpr int kPanelMats = Traits::kPanelDims / 8;
#pragma unroll 1
  for (int step = 0; step < attended.count * kBlock / 16; ++step) {
#pragma unroll
    for (int n = 0; n < Traits::kDimV / 8; ++n) {
      uint32_t both[2][2];
      load_values<Traits>(both, storage.values[stage][n / kPanelMats][attended.first * kBlock],
                          step, n % kPanelMats / 2);
      float quad[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) quad[i] = rows.out[4 * n + i];
      device::add_nonfinite<typename Traits::Element>(quad, p.p[0], both[n % 2]);
#pragma unroll
      for (int i = 0; i < 4; ++i) rows.out[4 * n + i] = quad[i];
    }
#pragma unroll
    for (int k = 0; k + 1 < Traits::kStageKeys / 16; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) p.p[k][i] = p.p[k + 1][i];
    }
  }
  arch::fence_proxy_async();  // As above.
}

}  // namespace minference::sm90
