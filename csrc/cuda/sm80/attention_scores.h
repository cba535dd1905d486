// Stage 3 on sm80: S = q K^T of a warp's rows, masked.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

#include "cuda/arch/matrix.h"
#include "cuda/device/key_mask.h"
#include "cuda/device/row_fragments.h"

namespace minference::sm80 {

/// Of a warp's 16 kRowMats rows and kStepKeys keys, as mma.sync leaves them. The thread's row 2 m +
/// h is row 16 m + 8 h + g; its keys in s[m][n] are 8 n + 2 t and the next one.
template <typename Traits>
struct Scores {
  static constexpr int kKeyMats = Traits::kStepKeys / 8;
  float s[Traits::kRowMats][kKeyMats][4];

  __device__ float& at(int m, int h, int n, int e) { return s[m][n][2 * h + e]; }
};

/// A warp's queries, of which the first kHeldSteps * 16 dims stay in registers.
template <typename Traits>
struct QueryFragments {
  static constexpr int kHeld = Traits::kHeldSteps;
  uint32_t held[Traits::kRowMats][kHeld == 0 ? 1 : kHeld][4];

  /// `rows`: address of the lane's place in the warp's rows (device::row_offset).
  __device__ void load(uint32_t rows) {
#pragma unroll
    for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
      for (int k = 0; k < kHeld; ++k) {
        device::load_a<typename Traits::QueryRows>(held[m][k], rows, 16 * m, k);
      }
    }
  }

  __device__ void get(uint32_t (&a)[4], uint32_t rows, int m, int k) const {
    if (k < kHeld) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = held[m][k][i];
    } else {
      device::load_a<typename Traits::QueryRows>(a, rows, 16 * m, k);
    }
  }
};

/// Scores against kStepKeys rows; `keys`: address of the lane's place in them (device::key_offset).
template <typename Traits>
__device__ inline void score_rows(Scores<Traits>& scores, const QueryFragments<Traits>& query,
                                  uint32_t query_rows, uint32_t keys) {
#pragma unroll
  for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
    for (int n = 0; n < Traits::kStepKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores.s[m][n][i] = 0;
    }
  }
#pragma unroll
  for (int k = 0; k < Traits::kDim / 16; ++k) {
    uint32_t a[Traits::kRowMats][4];
#pragma unroll
    for (int m = 0; m < Traits::kRowMats; ++m) query.get(a[m], query_rows, m, k);
#pragma unroll
    for (int n = 0; n < Traits::kStepKeys / 16; ++n) {
      uint32_t b[2][2];
      device::load_b<typename Traits::QueryRows>(b, keys, 16 * n, k);
#pragma unroll
      for (int m = 0; m < Traits::kRowMats; ++m) {
        arch::mma_m16n8k16<typename Traits::Element>(scores.s[m][2 * n], a[m], b[0]);
        arch::mma_m16n8k16<typename Traits::Element>(scores.s[m][2 * n + 1], a[m], b[1]);
      }
    }
  }
}

/// -inf where a row does not attend a key. Few tiles of a row block come here: those at its
/// diagonal, at the edge of a window, and with columns left out. A bit of a register per score, not
/// a comparison: comparisons of all scores at once would take the registers of as many.
template <typename Traits>
__device__ inline void mask_scores(Scores<Traits>& scores, const device::KeyMask& mask,
                                   int32_t first_position) {
  const int g = device::lane_index() / 4, t = device::lane_index() % 4;
#pragma unroll
  for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint64_t bits = mask.attended(first_position + 16 * m + 8 * h + g) >> (2 * t);
#pragma unroll
      for (int n = 0; n < Traits::kStepKeys / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          if ((bits >> (8 * n + e) & 1) == 0) scores.at(m, h, n, e) = -INFINITY;
        }
      }
    }
  }
}

}  // namespace minference::sm80
