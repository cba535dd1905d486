// Stage 3 on sm80, the work of one step of the main loop: S = q K^T, masked; the online softmax
// (device/online_softmax.h); O += P V, also where V has NaN or infinity.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

#include "cuda/arch/element.h"
#include "cuda/arch/math.h"
#include "cuda/arch/matrix.h"
#include "cuda/device/element_pair.h"
#include "cuda/device/online_softmax.h"
#include "cuda/device/rows.h"
#include "cuda/device/tile_walk.h"

namespace minference::sm80 {

// ---- S = q K^T ----------------------------------------------------------------------------------

/// Scores of a warp's 16 kRowMats rows and kStepKeys keys, as mma.sync leaves them. The thread's
/// row 2 m + h is row 16 m + 8 h + g; its keys in s[m][n] are 8 n + 2 t and the next one.
template <typename Traits>
struct Scores {
  static constexpr int kKeyMats = Traits::kStepKeys / 8;
  float s[Traits::kRowMats][kKeyMats][4];

  __device__ float& at(int m, int h, int n, int e) { return s[m][n][2 * h + e]; }
};

/// A warp's queries; the first kHeldSteps * 16 dims stay in registers.
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

/// Sets scores to -inf where a row does not attend a key. Few tiles of a row block come here: those
/// at its diagonal, at the edge of a window, and those with columns left out. It tests a bit of a
/// register for each score. Comparisons of all scores at once would take as many registers.
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

// ---- Online softmax, and O += P V ---------------------------------------------------------------

/// P as A operands of O += P V: 16 keys each.
template <typename Traits>
struct Probabilities {
  uint32_t p[Traits::kRowMats][Traits::kStepKeys / 16][4];

  /// Rounds once more; needed only if a later step of the same fill raises a maximum.
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

/// A warp's state of its rows: rows 16 m + 8 h + g of a thread, dims 8 n + 2 t and the next one.
template <typename Traits>
struct RowState {
  static constexpr int kDimMats = Traits::kDimV / 8;
  float out[Traits::kRowMats][kDimMats][4];
  float max[Traits::kRowMats][2];  // log2 units; the same in the four threads of a row.
  float sum[Traits::kRowMats][2];  // Over the thread's own keys.

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

/// The most that the P of a row may sum to in a thread and step, and so a bound on each of them:
/// 2^(kRescaleSlack + kHeadroom).
template <typename Element>
inline constexpr float kMostStepSum =
    1 << static_cast<int>(device::kRescaleSlack + device::kHeadroom<Element>);

/// P = 2^(scale S - max), and the thread's sums of P before it is rounded. Each step is summed
/// separately: adding 128K equal weights one by one in fp32 loses 2e-4, and pushes lse past 1e-5.
template <typename Traits>
__device__ inline void exponentiate(const RowState<Traits>& rows, Scores<Traits>& scores,
                                    float scale_log2, Probabilities<Traits>& p,
                                    float (&sums)[Traits::kRowMats][2]) {
#pragma unroll
  for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int n = 0; n < Traits::kStepKeys / 8; ++n) {
        float pair[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          pair[e] = arch::exp2_approx(fmaf(scores.at(m, h, n, e), scale_log2, -rows.max[m][h]));
        }
        const float pair_sum = pair[0] + pair[1];
        sums[m][h] = n == 0 ? pair_sum : sums[m][h] + pair_sum;
        // The places of the product's C are the places of the next product's A: arch/matrix.h.
        p.p[m][n / 2][n % 2 * 2 + h] =
            arch::pack_elements<typename Traits::Element>(pair[0], pair[1]);
      }
    }
  }
}

/// Raises the maxima of rows for which a thread's sum is too large. Then one of its eight scores is
/// more than kRescaleSlack - 3 above the maximum, so that the new maximum is higher.
template <typename Traits>
__device__ inline void raise_maxima(RowState<Traits>& rows, Scores<Traits>& scores,
                                    float scale_log2, const float (&sums)[Traits::kRowMats][2],
                                    Probabilities<Traits> (&steps)[Traits::kFillSteps],
                                    int num_before) {
#pragma unroll
  for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float largest = largest_score(scores, m, h);
      float sum = sums[m][h];
#pragma unroll
      for (int lanes = 1; lanes <= 2; lanes *= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(device::kFullWarp, largest, lanes));
        sum = fmaxf(sum, __shfl_xor_sync(device::kFullWarp, sum, lanes));
      }
      if (sum > kMostStepSum<typename Traits::Element>) {
        const float raised = largest * scale_log2 - device::kHeadroom<typename Traits::Element>;
        const float factor = arch::exp2_approx(rows.max[m][h] - raised);
        rows.max[m][h] = raised;
        rows.scale_row(m, h, factor);
#pragma unroll
        for (int i = 0; i + 1 < Traits::kFillSteps; ++i) {
          if (i < num_before) steps[i].scale_row(m, h, factor);
        }
      }
    }
  }
}

/// The softmax step steps[step]: P, and its sums. steps[0, num_before) are not in O yet.
///
/// The sums, which are needed anyway, show whether a maximum is too low; P is then computed again.
/// (Looking at all scores beforehand would take one more instruction per score.) A row's sums
/// decide about its own maximum alone.
template <typename Traits>
__device__ inline void soften(RowState<Traits>& rows, Scores<Traits>& scores, float scale_log2,
                              Probabilities<Traits> (&steps)[Traits::kFillSteps], int step,
                              int num_before) {
  float sums[Traits::kRowMats][2];
  exponentiate(rows, scores, scale_log2, steps[step], sums);
  float largest = sums[0][0];
#pragma unroll
  for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) largest = fmaxf(largest, sums[m][h]);
  }
  if (__any_sync(device::kFullWarp, largest > kMostStepSum<typename Traits::Element>)) {
    raise_maxima(rows, scores, scale_log2, sums, steps, num_before);
    exponentiate(rows, scores, scale_log2, steps[step], sums);
  }
#pragma unroll
  for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) rows.sum[m][h] += sums[m][h];
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

// ---- NaN and infinity in V ----------------------------------------------------------------------
//
// V may have NaN or infinity in keys that only some rows of a tile attend. 0 * NaN is NaN, so a
// plain product would carry it into rows that must not see it. Tiles in which every row attends
// every key need no care. In the others a warp looks at V's exponents first. If one is all ones, V
// is multiplied without those elements, and two more products say which sums they reach: P with
// ones where V is +inf (or NaN), and P with ones where it is -inf (or NaN). A row whose P has
// become 0 in the dtype counts as not attending.

/// True if some row of row block `r` of the row tile does not attend some loaded key of the tile.
__device__ inline bool is_exposed(const device::PairTile& tile, int r) {
  return tile.mask[r] != 0 || tile.keep[r] != tile.loaded();
}

/// Whether V has a NaN or an infinity in these keys. The whole warp calls it.
template <typename Traits>
__device__ inline bool has_nonfinite(uint32_t values) {
  using Pair = device::ElementPair<typename Traits::Element>;
  uint32_t found = 0;
#pragma unroll 2
  for (int k = 0; k < Traits::kStepKeys / 16; ++k) {
#pragma unroll
    for (int n = 0; n < Traits::kDimV / 16; ++n) {
      uint32_t b[2][2];
      device::load_b_transposed<typename Traits::ValueRows>(b, values, 16 * k, n);
      found |= Pair::nonfinite(b[0][0]) | Pair::nonfinite(b[0][1]) | Pair::nonfinite(b[1][0]) |
               Pair::nonfinite(b[1][1]);
    }
  }
  return __any_sync(device::kFullWarp, found != 0);
}

/// O += P V, in which no NaN or infinity of V reaches a row that does not attend its key.
template <typename Traits>
__device__ inline void add_nonfinite_values(RowState<Traits>& rows, const Probabilities<Traits>& p,
                                            uint32_t values) {
#pragma unroll
  for (int k = 0; k < Traits::kStepKeys / 16; ++k) {
#pragma unroll
    for (int n = 0; n < Traits::kDimV / 8; ++n) {
      uint32_t both[2][2];
      device::load_b_transposed<typename Traits::ValueRows>(both, values, 16 * k, n / 2);
#pragma unroll
      for (int m = 0; m < Traits::kRowMats; ++m) {
        device::add_nonfinite<typename Traits::Element>(rows.out[m][n], p.p[m][k], both[n % 2]);
      }
      __syncwarp();  // Orders no memory: keeps the compiler from moving up later code.
    }
  }
}

}  // namespace minference::sm80
