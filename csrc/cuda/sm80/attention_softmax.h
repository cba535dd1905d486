// Stage 3 on sm80: online softmax of a warp's rows (device/online_softmax.h), and O += P V.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

#include "cuda/arch/element.h"
#include "cuda/arch/math.h"
#include "cuda/arch/matrix.h"
#include "cuda/device/online_softmax.h"
#include "cuda/device/row_fragments.h"
#include "cuda/sm80/attention_scores.h"

namespace minference::sm80 {

/// P as A operands of O += P V: 16 keys each.
template <typename Traits>
struct Probabilities {
  uint32_t p[Traits::kRowMats][Traits::kStepKeys / 16][4];

  /// Rounds once more: only where a later step of the same fill raises a maximum.
  __device__ void scale_row(int m, int h, float factor) {
    using Element = typename Traits::Element;
#pragma unroll
    for (int k = 0; k < Traits::kStepKeys / 16; ++k) {
#pragma unroll
      for (int i = h; i < 4; i += 2) {
        const arch::FloatPair pair = arch::unpack_elements<Element>(p[m][k][i]);
        p[m][k][i] = arch::pack_elements<Element>(pair.low * factor, pair.high * factor);
      }
    }
  }
};

/// What a warp keeps of its rows: rows 16 m + 8 h + g of a thread, dims 8 n + 2 t and the next one.
template <typename Traits>
struct RowState {
  static constexpr int kDimMats = Traits::kDimV / 8;
  float out[Traits::kRowMats][kDimMats][4];
  float max[Traits::kRowMats][2];  // log2 units; the same in the four threads of a row.
  float sum[Traits::kRowMats][2];  // Of the thread's own keys.

  __device__ RowState() {
#pragma unroll
    for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
      for (int n = 0; n < kDimMats; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) out[m][n][i] = 0;
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        max[m][h] = device::kNoScore;
        sum[m][h] = 0;
      }
    }
  }

  /// Sums over the four threads of a row; once, at the end.
  __device__ void complete_sums() {
#pragma unroll
    for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        sum[m][h] += __shfl_xor_sync(device::kFullWarp, sum[m][h], 1);
        sum[m][h] += __shfl_xor_sync(device::kFullWarp, sum[m][h], 2);
      }
    }
  }

  __device__ void scale_row(int m, int h, float factor) {
    sum[m][h] *= factor;
#pragma unroll
    for (int n = 0; n < kDimMats; ++n) {
      out[m][n][2 * h] *= factor;
      out[m][n][2 * h + 1] *= factor;
    }
  }
};

/// The thread's largest score of a row. A NaN loses against a number.
template <typename Traits>
__device__ inline float largest_score(Scores<Traits>& scores, int m, int h) {
  float largest = scores.at(m, h, 0, 0);
#pragma unroll
  for (int n = 0; n < Traits::kStepKeys / 8; ++n) {
    largest = fmaxf(largest, fmaxf(scores.at(m, h, n, 0), scores.at(m, h, n, 1)));
  }
  return largest;
}

/// Raises the maxima of rows whose scores need it. steps[0, num_before) are not in O yet.
template <typename Traits>
__device__ inline void raise_maxima(RowState<Traits>& rows, Scores<Traits>& scores,
                                    float scale_log2,
                                    Probabilities<Traits> (&steps)[Traits::kFillSteps],
                                    int num_before) {
#pragma unroll
  for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float largest = largest_score(scores, m, h);
      largest = fmaxf(largest, __shfl_xor_sync(device::kFullWarp, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(device::kFullWarp, largest, 2));
      const float raised = largest * scale_log2 - device::kHeadroom<typename Traits::Element>;
      const float before = rows.max[m][h];
      if (raised > before + device::kRescaleSlack) {
        rows.max[m][h] = raised;
        const float factor = arch::exp2_approx(before - raised);
        rows.scale_row(m, h, factor);
#pragma unroll
        for (int i = 0; i < num_before; ++i) steps[i].scale_row(m, h, factor);
      }
    }
  }
}

/// steps[step]: P = 2^(scale S - max), and its sums, before P is rounded.
template <typename Traits>
__device__ inline void soften(RowState<Traits>& rows, Scores<Traits>& scores, float scale_log2,
                              Probabilities<Traits> (&steps)[Traits::kFillSteps], int step) {
  float growth = -INFINITY;
#pragma unroll
  for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      growth = fmaxf(growth, fmaf(largest_score(scores, m, h), scale_log2, -rows.max[m][h]));
    }
  }
  constexpr float kMost = device::kRescaleSlack + device::kHeadroom<typename Traits::Element>;
  if (__any_sync(device::kFullWarp, growth > kMost)) {
    raise_maxima(rows, scores, scale_log2, steps, /*num_before=*/step);
  }
#pragma unroll
  for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      // Of a step by itself: of 128K keys that weigh alike, one by one, the last digits of the sum
      // would be off by 2e-4, and lse by more than 1e-5.
      float step_sum = 0;
#pragma unroll
      for (int n = 0; n < Traits::kStepKeys / 8; ++n) {
        float p[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          p[e] = arch::exp2_approx(fmaf(scores.at(m, h, n, e), scale_log2, -rows.max[m][h]));
        }
        step_sum += p[0] + p[1];
        // C's place of the product becomes A's place of the next: arch/matrix.h.
        steps[step].p[m][n / 2][n % 2 * 2 + h] =
            arch::pack_elements<typename Traits::Element>(p[0], p[1]);
      }
      rows.sum[m][h] += step_sum;
    }
  }
}

/// O += P V; `values`: address of the lane's place in V's kStepKeys rows (device::row_offset).
template <typename Traits>
__device__ inline void add_values(RowState<Traits>& rows, const Probabilities<Traits>& p,
                                  uint32_t values) {
#pragma unroll
  for (int k = 0; k < Traits::kStepKeys / 16; ++k) {
#pragma unroll
    for (int n = 0; n < Traits::kDimV / 16; ++n) {
      uint32_t b[2][2];
      device::load_b_transposed<typename Traits::ValueRows>(b, values, 16 * k, n);
#pragma unroll
      for (int m = 0; m < Traits::kRowMats; ++m) {
        arch::mma_m16n8k16<typename Traits::Element>(rows.out[m][2 * n], p.p[m][k], b[0]);
        arch::mma_m16n8k16<typename Traits::Element>(rows.out[m][2 * n + 1], p.p[m][k], b[1]);
      }
    }
  }
}

}  // namespace minference::sm80
