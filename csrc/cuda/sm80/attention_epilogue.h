// Stage 3 on sm80: a warp's sums are joined with those of the warp that had the other keys,
// divided, and stored: as rows of out, or as a partial result that is combined later.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "cuda/arch/math.h"
#include "cuda/device/online_softmax.h"
#include "cuda/sm80/attention_mainloop.h"
#include "cuda/sm80/kernels.h"

namespace minference::sm80 {

/// Where a warp's rows go.
struct WarpRows {
  int32_t batch;
  int32_t head;
  int32_t first;  // The first row, within the call.
  int32_t count;  // How many of the warp's rows exist; may be 0 or negative.
};

/// One warp's sums, as another takes them over: lane by lane, in the order of its registers.
template <typename Traits>
struct alignas(16) WarpSums {
  float out[Traits::kRowMats * RowState<Traits>::kDimMats][32][4];
  float max[Traits::kRowMats][2][32];
  float sum[Traits::kRowMats][2][32];
};

template <typename Traits>
__device__ inline void give_sums(WarpSums<Traits>& to, const RowState<Traits>& rows) {
  const int lane = device::lane_index();
#pragma unroll
  for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
    for (int n = 0; n < RowState<Traits>::kDimMats; ++n) {
      float* const quad = to.out[m * RowState<Traits>::kDimMats + n][lane];
#pragma unroll
      for (int i = 0; i < 4; ++i) quad[i] = rows.out[m][n][i];
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      to.max[m][h][lane] = rows.max[m][h];
      to.sum[m][h][lane] = rows.sum[m][h];
    }
  }
}

/// Adds the sums of the same rows over other keys.
template <typename Traits>
__device__ inline void take_sums(RowState<Traits>& rows, const WarpSums<Traits>& from) {
  const int lane = device::lane_index();
#pragma unroll
  for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float other_max = from.max[m][h][lane];
      const float max = fmaxf(rows.max[m][h], other_max);
      rows.scale_row(m, h, arch::exp2_approx(rows.max[m][h] - max));
      rows.max[m][h] = max;
      const float factor = arch::exp2_approx(other_max - max);
      rows.sum[m][h] = fmaf(from.sum[m][h][lane], factor, rows.sum[m][h]);
#pragma unroll
      for (int n = 0; n < RowState<Traits>::kDimMats; ++n) {
        const float* const quad = from.out[m * RowState<Traits>::kDimMats + n][lane];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& out = rows.out[m][n][2 * h + e];
          out = fmaf(quad[2 * h + e], factor, out);
        }
      }
    }
  }
}

template <typename Traits>
__device__ inline float row_lse2(const RowState<Traits>& rows, int m, int h) {
  return device::lse2_of(rows.max[m][h], rows.sum[m][h]);
}

/// Divides by the sums. A row that attends nothing is 0.
template <typename Traits>
__device__ inline void normalize(RowState<Traits>& rows) {
#pragma unroll
  for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float factor = rows.sum[m][h] == 0 ? 0.0f : arch::reciprocal_approx(rows.sum[m][h]);
#pragma unroll
      for (int n = 0; n < RowState<Traits>::kDimMats; ++n) {
        rows.out[m][n][2 * h] *= factor;
        rows.out[m][n][2 * h + 1] *= factor;
      }
    }
  }
}

/// Calls store(m, h, row) for the thread's rows that exist.
template <typename Traits, typename Store>
__device__ inline void for_each_row(const WarpRows& place, const Store& store) {
#pragma unroll
  for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = 16 * m + 8 * h + device::lane_index() / 4;
      if (row < place.count) store(m, h, row);
    }
  }
}

/// Stores rows of out through shared memory, so that stores have 16 bytes each. `staging` is the
/// memory of the warp's own queries, which it no longer needs.
template <typename Traits>
__device__ inline void store_out(const AttentionParams& params, const RowState<Traits>& rows,
                                 const WarpRows& place, std::byte* staging) {
  using Element = typename Traits::Element;
  using Rows = typename Traits::ValueRows;
  const auto lane = static_cast<int>(arch::opaque(threadIdx.x)) % device::kWarpThreads;
  const uint32_t own = Rows::offset(lane / 4, 0) + lane % 4 * 4;
#pragma unroll
  for (int m = 0; m < Traits::kRowMats; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int n = 0; n < RowState<Traits>::kDimMats; ++n) {
        const uint32_t to = Rows::add_rows(Rows::add_pieces(own, n), 16 * m + 8 * h);
        *reinterpret_cast<uint32_t*>(staging + to) =
            arch::pack_elements<Element>(rows.out[m][n][2 * h], rows.out[m][n][2 * h + 1]);
      }
    }
  }
  __syncwarp();  // The warp's rows are complete.
  const int piece = lane % Rows::kRowThreads;
  if (piece >= Rows::kPieces || piece * device::kPieceElements >= params.head_dim_v) return;
  Element* const out = static_cast<Element*>(params.out.data) +
                       place.batch * params.out.batch_stride + place.head * params.out.head_stride +
                       piece * device::kPieceElements;
#pragma unroll 4
  for (int row = lane / Rows::kRowThreads; row < Traits::kWarpRows; row += 32 / Rows::kRowThreads) {
    if (row >= place.count) break;
    const uint4 bits = *reinterpret_cast<const uint4*>(staging + Rows::offset(row, piece));
    *reinterpret_cast<uint4*>(out + (int64_t{place.first} + row) * params.out.token_stride) = bits;
  }
}

template <typename Traits>
__device__ inline void store_lse(const AttentionParams& params, const RowState<Traits>& rows,
                                 const WarpRows& place) {
  if (params.lse.data == nullptr || device::lane_index() % 4 != 0) return;
  float* const lse =
      params.lse.data + place.batch * params.lse.batch_stride + place.head * params.lse.head_stride;
  for_each_row<Traits>(place, [&](int m, int h, int row) {
    lse[(int64_t{place.first} + row) * params.lse.row_stride] =
        device::lse_of(row_lse2(rows, m, h));
  });
}

/// Stores a partial result directly from registers: it occurs in small calls only.
template <typename Traits>
__device__ inline void store_partial(const AttentionParams& params, const RowState<Traits>& rows,
                                     const WarpRows& place, int64_t split) {
  const int t = device::lane_index() % 4;
  const int64_t head_idx = int64_t{place.batch} * params.num_heads_q + place.head;
  const int64_t first_row =
      (split * params.num_partial_heads + head_idx) * params.sequences.max.seqlen_q + place.first;
  for_each_row<Traits>(place, [&](int m, int h, int row) {
    if (t == 0) params.partial.lse2[first_row + row] = row_lse2(rows, m, h);
    float* const out = params.partial.out + (first_row + row) * params.partial.dim_v;
#pragma unroll
    for (int n = 0; n < RowState<Traits>::kDimMats; ++n) {
      if (8 * n >= params.head_dim_v) continue;
      *reinterpret_cast<float2*>(out + 8 * n + 2 * t) =
          make_float2(rows.out[m][n][2 * h], rows.out[m][n][2 * h + 1]);
    }
  });
}

}  // namespace minference::sm80
