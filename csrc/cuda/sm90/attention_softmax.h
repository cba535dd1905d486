// Stage 3 on sm90: online softmax of a warpgroup's rows (device/online_softmax.h), and O += P V.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

#include "cuda/arch/element.h"
#include "cuda/arch/math.h"
#include "cuda/arch/wgmma.h"
#include "cuda/device/online_softmax.h"
#include "cuda/sm90/attention_scores.h"

namespace minference::sm90 {

/// P as A operands of O += P V: 16 keys each.
template <typename Traits>
struct Probabilities {
  uint32_t p[Traits::kStageKeys / 16][4];
};

/// What O is multiplied by once the products under way are in it: maxima have been raised.
struct Rescale {
  float factor[2];
  bool needed;  // The same in all lanes.
};

/// What a thread keeps of its two rows, 16 w + 8 h + g of the row block: dims 8 n + 2 t + e at
/// out[4 n + 2 h + e].
template <typename Traits>
struct RowState {
  float out[Traits::kDimV / 2];
  float max[2];  // log2 units; the same in the four threads of a row.
  float sum[2];  // Of the thread's own keys.

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

/// Raises the maxima of rows whose scores need it; their sums follow at once, O later.
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

/// Scores of tiles [kBegin, kEnd) become P = 2^(scale S - max), still float32, and are added to the
/// sums.
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

/// Rounds P. A thread's places of the product become its places of the next: arch/wgmma.h.
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

/// Issues, behind a fence, O += P V for kTiles tiles of a stage from `first_tile` on.
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

/// The same for the tiles that are attended, to its end. issued() is called once all is issued.
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

}  // namespace minference::sm90
