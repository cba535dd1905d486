// Stage 3 on sm80: S = q K^T of a warp's rows, masked.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

#include "core/key_tiles.h"
#include "cuda/arch/matrix.h"
#include "cuda/device/row_fragments.h"
#include "cuda/sm80/attention_tiles.h"

namespace minference::sm80 {

/// Of a warp's 16 kRowMats rows and kKeys keys, as mma.sync leaves them. The thread's row 2 m + h
/// is row 16 m + 8 h + g; its keys in s[m][n] are 8 n + 2 t and the next one.
template <typename Traits, int kKeys>
struct Scores {
  static constexpr int kKeyMats = kKeys / 8;
  float s[Traits::kRowMats][kKeyMats][4];

  __device__ float& at(int m, int h, int n, int e) { return s[m][n][2 * h + e]; }
};

/// A warp's queries, in registers where they fit.
template <typename Traits>
struct QueryFragments {
  static constexpr int kSteps = Traits::kDim / 16;
  static constexpr int kHeld = Traits::kHoldQuery ? kSteps : 1;
  uint32_t held[Traits::kRowMats][kHeld][4];

  /// `rows` are the warp's own.
  __device__ void load(const typename Traits::Element* rows) {
    if constexpr (Traits::kHoldQuery) {
#pragma unroll
      for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
        for (int k = 0; k < kSteps; ++k) {
          device::load_a<typename Traits::QueryRows>(held[m][k], rows, 16 * m, k);
        }
      }
    }
  }

  __device__ void get(uint32_t (&a)[4], const typename Traits::Element* rows, int m, int k) const {
    if constexpr (Traits::kHoldQuery) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = held[m][k][i];
    } else {
      device::load_a<typename Traits::QueryRows>(a, rows, 16 * m, k);
    }
  }
};

/// Scores against rows [first_key, first_key + kKeys) of `keys`.
template <typename Traits, int kKeys>
__device__ inline void score_rows(Scores<Traits, kKeys>& scores,
                                  const QueryFragments<Traits>& query,
                                  const typename Traits::Element* query_rows,
                                  const typename Traits::Element* keys, int first_key) {
#pragma unroll
  for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
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
    for (int n = 0; n < kKeys / 16; ++n) {
      uint32_t b[2][2];
      device::load_b<typename Traits::QueryRows>(b, keys, first_key + 16 * n, k);
#pragma unroll
      for (int m = 0; m < Traits::kRowMats; ++m) {
        arch::mma_m16n8k16<typename Traits::Element>(scores.s[m][2 * n], a[m], b[0]);
        arch::mma_m16n8k16<typename Traits::Element>(scores.s[m][2 * n + 1], a[m], b[1]);
      }
    }
  }
}

/// Which keys of a step a warp's rows attend.
struct StepMask {
  uint64_t keep;           // Of the warp's keys, from bit 0 on.
  int32_t first_key;       // Key of bit 0; of a column tile, its entry.
  const int32_t* columns;  // Null: keys are contiguous.
  int32_t first_position;  // Of the warp's first row.
  int32_t sink;            // Window: rows before dense_from attend keys before sink, ...
  int32_t window;          // ... and as many up to their own. INT32_MAX: no window.
  int32_t dense_from;
};

/// -inf where a row does not attend a key. Few tiles of a row block come here: those at its
/// diagonal, at the edge of a window, and with columns left out.
template <typename Traits, int kKeys>
__device__ inline void mask_scores(Scores<Traits, kKeys>& scores, const StepMask& mask) {
  const int g = device::lane_index() / 4, t = device::lane_index() % 4;
#pragma unroll
  for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int i = 8 * n + 2 * t + e;
      const bool kept = (mask.keep >> i & 1) != 0;
      int32_t key = mask.first_key + i;
      if (mask.columns != nullptr) key = kept ? mask.columns[key] : 0;
#pragma unroll
      for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int32_t position = mask.first_position + 16 * m + 8 * h + g;
          const bool in_window = key < mask.sink || position - key < mask.window ||
                                 position >= mask.dense_from;
          if (!(kept && key <= position && in_window)) scores.at(m, h, n, e) = -INFINITY;
        }
      }
    }
  }
}

}  // namespace minference::sm80
