// Stage 3 on sm90, the work of one step of the main loop: S = q K^T, masked; the online softmax
// (device/online_softmax.h); O += P V, also where V has NaN or infinity.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

#include "cuda/arch/barrier.h"
#include "cuda/arch/element.h"
#include "cuda/arch/math.h"
#include "cuda/arch/matrix.h"
#include "cuda/arch/wgmma.h"
#include "cuda/device/element_pair.h"
#include "cuda/device/online_softmax.h"
#include "cuda/device/rows.h"
#include "cuda/device/tile_walk.h"
#include "cuda/sm90/attention_traits.h"
#include "cuda/sm90/kernels.h"

namespace minference::sm90 {

// ---- S = q K^T ----------------------------------------------------------------------------------

/// The tiles of a stage that a warpgroup attends. Its index in a tile is that of its row block.
struct AttendedTiles {
  int count;     // 0 to 2.
  int first;     // Index of the first of them in the stage; two are consecutive.
  bool exposed;  // Some row does not attend some loaded key.

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

/// A thread's scores with the keys of kTiles tiles, as wgmma leaves them: row 16 w + 8 h + g and
/// key 8 n + 2 t + e of tile i are at s[32 i + 4 n + 2 h + e].
template <int kTiles>
struct Scores {
  float s[kTiles * kBlock / 2];

  __device__ float& at(int tile, int h, int n, int e) {
    return s[kBlock / 2 * tile + 4 * n + 2 * h + e];
  }
};

/// Issues, after a fence, the products of a row block's queries with the keys of kTiles tiles of a
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

/// Sets scores to -inf where a row does not attend a key, by a bit of a register per score.
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

/// Masks tiles, from `first_tile` of the stage on, where needed. `position`: of the thread's first
/// row.
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

// ---- Online softmax, and O += P V ---------------------------------------------------------------

/// P as A operands of O += P V: 16 keys each.
template <typename Traits>
struct Probabilities {
  uint32_t p[Traits::kStageKeys / 16][4];
};

/// The factor for O once the running products are in it, because maxima have been raised.
struct Rescale {
  float factor[2];
  bool needed;  // The same in all lanes.
};

/// A thread's state of its two rows, 16 w + 8 h + g of the row block; dims 8 n + 2 t + e are at
/// out[4 n + 2 h + e].
template <typename Traits>
struct RowState {
  float out[Traits::kDimV / 2];
  float max[2];  // log2 units; the same in the four threads of a row.
  float sum[2];  // Over the thread's own keys.

  __device__ RowState() {
#pragma unroll
    for (float& value : out) value = 0;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      max[h] = device::kNoScore;
      sum[h] = 0;
    }
  }

  __device__ void scale_out(int h, float factor) {
#pragma unroll
    for (int n = 0; n < Traits::kDimV / 8; ++n) {
      out[4 * n + 2 * h] *= factor;
      out[4 * n + 2 * h + 1] *= factor;
    }
  }

  __device__ void scale_out(const Rescale& rescale) {
    if (!rescale.needed) return;
#pragma unroll
    for (int h = 0; h < 2; ++h) scale_out(h, rescale.factor[h]);
  }

  /// Sums over the four threads of a row; once, at the end.
  __device__ void complete_sums() {
#pragma unroll
    for (float& value : sum) {
      value += __shfl_xor_sync(device::kFullWarp, value, 1);
      value += __shfl_xor_sync(device::kFullWarp, value, 2);
    }
  }
};

/// The thread's largest score of a row. A NaN loses against a number.
template <int kTiles>
__device__ inline float largest_score(Scores<kTiles>& scores, int h) {
  float largest = scores.at(0, h, 0, 0);
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
#pragma unroll
    for (int n = 0; n < kBlock / 8; ++n) {
      largest = fmaxf(largest, fmaxf(scores.at(i, h, n, 0), scores.at(i, h, n, 1)));
    }
  }
  return largest;
}

/// Raises the maxima of rows whose scores need it; the sums are scaled at once, O later.
template <typename Traits, int kTiles>
__device__ inline Rescale raise_maxima(RowState<Traits>& rows, Scores<kTiles>& scores,
                                       float scale_log2) {
  Rescale rescale{.factor = {1, 1}, .needed = false};
  float largest[2];
  float growth = -INFINITY;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    largest[h] = largest_score(scores, h);
    growth = fmaxf(growth, fmaf(largest[h], scale_log2, -rows.max[h]));
  }
  constexpr float kHeadroom = device::kHeadroom<typename Traits::Element>;
  rescale.needed = __any_sync(device::kFullWarp, growth > device::kRescaleSlack + kHeadroom) != 0;
  if (!rescale.needed) return rescale;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    largest[h] = fmaxf(largest[h], __shfl_xor_sync(device::kFullWarp, largest[h], 1));
    largest[h] = fmaxf(largest[h], __shfl_xor_sync(device::kFullWarp, largest[h], 2));
    const float raised = largest[h] * scale_log2 - kHeadroom;
    if (raised <= rows.max[h] + device::kRescaleSlack) continue;
    rescale.factor[h] = arch::exp2_approx(rows.max[h] - raised);
    rows.max[h] = raised;
    rows.sum[h] *= rescale.factor[h];
  }
  return rescale;
}

/// Turns scores of tiles [kBegin, kEnd) into P = 2^(scale S - max), still in float32, and adds them
/// to the sums.
template <typename Traits, int kBegin, int kEnd, int kTiles>
__device__ inline void exponentiate(RowState<Traits>& rows, Scores<kTiles>& scores,
                                    float scale_log2) {
#pragma unroll
  for (int i = kBegin; i < kEnd; ++i) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      // Each tile is summed separately: adding 128K equal weights one by one in fp32 loses 2e-4,
      // and pushes lse past 1e-5.
      float tile_sum = 0;
#pragma unroll
      for (int n = 0; n < kBlock / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& score = scores.at(i, h, n, e);
          score = arch::exp2_approx(fmaf(score, scale_log2, -rows.max[h]));
          tile_sum += score;
        }
      }
      rows.sum[h] += tile_sum;
    }
  }
}

/// Rounds P. A thread's places in this product are its places in the next one: arch/wgmma.h.
template <typename Traits, int kTiles>
__device__ inline void pack_probabilities(Probabilities<Traits>& p, const Scores<kTiles>& scores) {
#pragma unroll
  for (int k = 0; k < kTiles * kBlock / 16; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      p.p[k][i] = arch::pack_elements<typename Traits::Element>(scores.s[8 * k + 2 * i],
                                                                scores.s[8 * k + 2 * i + 1]);
    }
  }
}

/// Issues, after a fence, O += P V for kTiles tiles of a stage from `first_tile` on.
template <typename Traits, int kTiles>
__device__ inline void multiply_values(RowState<Traits>& rows, const Probabilities<Traits>& p,
                                       const typename Traits::SharedStorage& storage, int stage,
                                       int first_tile) {
  using Element = typename Traits::Element;
  const auto b =
      arch::mn_major_descriptor(storage.values[stage][0][first_tile * kBlock], Traits::kSwizzle,
                                /*panel_bytes=*/Traits::kStageKeys * Traits::kRowBytes);
#pragma unroll
  for (int step = 0; step < kTiles * kBlock / 16; ++step) {
    arch::wgmma<Element, arch::Major::kMn>(
        rows.out, p.p[step], arch::advance(b, step * 16 * Traits::kRowBytes), /*accumulate=*/true);
  }
}

/// The same for the attended tiles, until it is complete. issued() is called once all is issued.
template <typename Traits, typename Issued>
__device__ inline void add_values(RowState<Traits>& rows, Probabilities<Traits>& p,
                                  const typename Traits::SharedStorage& storage, int stage,
                                  const AttendedTiles& attended, const Issued& issued) {
  const auto finish = [&] {
    arch::wgmma_commit_group();
    issued();
    arch::wgmma_wait<0>();
    arch::keep_registers(rows.out);
  };
  if (device::warp_uniform(attended.count == Traits::kStageTiles)) {
    arch::wgmma_fence(rows.out, p.p);
    multiply_values<Traits, Traits::kStageTiles>(rows, p, storage, stage, /*first_tile=*/0);
    finish();
  } else {
    arch::wgmma_fence(rows.out, p.p);
    multiply_values<Traits, 1>(rows, p, storage, stage, attended.first);
    finish();
  }
}

// ---- NaN and infinity in V ----------------------------------------------------------------------
//
// V may have NaN or infinity in keys that only some rows of a tile attend. 0 * NaN is NaN, so a
// plain product would carry it into rows that must not see it. Tiles in which every row attends
// every key need no care. In the others a warpgroup looks at V's exponents before the product. If
// one is all ones, it multiplies with mma.sync, whose operands pass through registers: first
// without those elements, then by ones where V is +inf (or NaN) and by ones where it is -inf (or
// NaN), to see which sums they reach. A row whose P has become 0 in the dtype counts as not
// attending.
//
// Both read V with ordinary loads, and TMA overwrites it once it is released: each thread fences
// after its reads. Source: FlashAttention-3 and CUTLASS's TMA epilogues do so before a release.

/// Whether V has a NaN or an infinity in the attended tiles of a stage. The warpgroup calls it; it
/// has a barrier.
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

/// B of mma.m16n8k16, rows along keys: dims [16 n, 16 n + 16) of the panel are the 8 columns each
/// of b[0], b[1], for keys [16 k, 16 k + 16) of the values at `rows`.
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

/// add_values() for values that has_nonfinite(); it overwrites p. No product may be in flight. It
/// is rare, so it is a loop that moves p from register to register, not the unrolled code of all
/// steps.
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
