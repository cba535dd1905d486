// Stage 3 on sm90: a warpgroup's sums are divided, and stored by TMA as rows of out.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/barrier.h"
#include "cuda/arch/bulk_copy.h"
#include "cuda/arch/matrix.h"
#include "cuda/sm90/attention_mainloop.h"

namespace minference::sm90 {

/// Divides by the sums, and writes the warp's 16 rows of out where its queries were, in the layout
/// that TMA reads. A row that attends nothing is 0.
template <typename Traits>
__device__ inline void stage_out(typename Traits::OutTile& tile, RowState<Traits>& rows) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    rows.scale_out(h, rows.sum[h] == 0 ? 0.0f : arch::reciprocal_approx(rows.sum[h]));
  }
  using Element = typename Traits::Element;
  const int lane = device::lane_index();
  const int row = static_cast<int>(threadIdx.x) % device::kWarpgroupThreads / 32 * 16 + lane % 16;
  // stmatrix: lanes 0 to 15 address the rows' first 8 dims of 16, the others the next 8.
  const auto own =
      static_cast<uint32_t>(row) * Traits::kRowBytes + static_cast<uint32_t>(lane / 16 * 16);
#pragma unroll
  for (int n = 0; n < Traits::kDimV / 16; ++n) {
    constexpr int kPanelSteps = Traits::kPanelDims / 16;
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      words[i] = arch::pack_elements<Element>(rows.out[8 * n + 2 * i], rows.out[8 * n + 2 * i + 1]);
    }
    auto* const panel = reinterpret_cast<std::byte*>(tile[n / kPanelSteps]);
    arch::stmatrix_x4(panel + arch::swizzle_offset(Traits::kSwizzle, own + n % kPanelSteps * 32),
                      words);
  }
}

/// One thread calls it: the copies are a group of that thread.
template <typename Traits>
__device__ inline void store_out(const AttentionParams& params,
                                 const typename Traits::OutTile& tile, int32_t batch, int32_t head,
                                 int32_t row) {
#pragma unroll
  for (int panel = 0; panel < Traits::kValuePanels; ++panel) {
    arch::cp_async_bulk_tensor_store(params.maps.out,
                                     {panel * Traits::kPanelDims, row, head, batch}, tile[panel],
                                     arch::l2_evict_first());
  }
  arch::cp_async_bulk_commit();
}

/// `row`: the thread's first row.
template <typename Traits>
__device__ inline void store_lse(const AttentionParams& params, const RowState<Traits>& rows,
                                 int32_t batch, int32_t head, int32_t row) {
  if (params.lse.data == nullptr || device::lane_index() % 4 != 0) return;
  float* const lse =
      params.lse.data + batch * params.lse.batch_stride + head * params.lse.head_stride;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (row + 8 * h >= params.sequences.at(batch).lengths.seqlen_q) continue;
    lse[(int64_t{row} + 8 * h) * params.lse.row_stride] =
        device::lse_of(device::lse2_of(rows.max[h], rows.sum[h]));
  }
}

}  // namespace minference::sm90
