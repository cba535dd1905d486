// The kernel of pool_rows.h: one warp per block of rows and head, 16-byte loads, fp32 sums in a
// fixed order. Bound by memory: q and k of 32 and 8 heads, 128 dims, 1M tokens are 10.7 GB, 2.5 ms
// at 4.3 TB/s, 90 % of what an H200 has.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/launch.h"
#include "cuda/common/pool_rows.h"
#include "cuda/device/rows.h"

namespace minference::cuda {

template <typename Element_, int kPaddedDim_>
struct PoolTraits {
  using Element = Element_;
  static constexpr int kPaddedDim = kPaddedDim_;
  static constexpr bool kKeysInPanels = false;
  static_assert(kPaddedDim % kGroupDims == 0 && kPaddedDim <= 256);

  static constexpr int kWarps = 8;
  static constexpr int kThreads = kWarps * device::kWarpThreads;

  // A lane takes 8 dims of a row: a warp reads 4 rows of 64 dims at a time, 2 of up to 128.
  static constexpr int kLanesPerRow = kPaddedDim / 8;
  static constexpr int kRowsPerLoad = kLanesPerRow <= 8 ? 4 : kLanesPerRow <= 16 ? 2 : 1;
  // Up to 128 bytes in flight per lane. Half of that in the 32 warps that 64 registers allow is 64
  // KiB per SM; an H200's 36 GB/s per SM at 800 ns need 29.
  static constexpr int kLoads = 8;
};

/// Sums dims [8 lane, 8 lane + 8) of up to 64 rows from `first` on in `sum`, on the first
/// kLanesPerRow lanes.
template <typename Traits>
__device__ inline void sum_rows(const HeadRows<uint16_t>& rows, int64_t first, int32_t num_rows,
                                int32_t head_dim, float (&sum)[8]) {
  constexpr int kStep = Traits::kRowsPerLoad * Traits::kLoads;
  const int lane = device::lane_index();
  const int first_row = lane / Traits::kLanesPerRow;
  const int first_dim = lane % Traits::kLanesPerRow * 8;
  const uint16_t* const source = rows.row(first) + first_dim;
  const bool loads = first_row < Traits::kRowsPerLoad && first_dim < head_dim;
#pragma unroll 1
  for (int begin = 0; begin < num_rows; begin += kStep) {
    device::RowPiece pieces[Traits::kLoads];
#pragma unroll
    for (int i = 0; i < Traits::kLoads; ++i) {
      const int row = begin + i * Traits::kRowsPerLoad + first_row;
      pieces[i] = device::RowPiece{};
      if (loads && row < num_rows) {
        pieces[i] = *reinterpret_cast<const device::RowPiece*>(source + row * rows.stride);
      }
    }
#pragma unroll
    for (int i = 0; i < Traits::kLoads; ++i) {
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const arch::FloatPair pair =
            arch::unpack_elements<typename Traits::Element>(pieces[i].words[w]);
        sum[2 * w] += pair.low;
        sum[2 * w + 1] += pair.high;
      }
    }
  }
  // Adds the rows that other lanes summed, always in the same tree.
#pragma unroll
  for (int rows_left = Traits::kRowsPerLoad / 2; rows_left > 0; rows_left /= 2) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      sum[i] += __shfl_down_sync(device::kFullWarp, sum[i], rows_left * Traits::kLanesPerRow);
    }
  }
}

/// 8 means of a lane as high + low, a word for two.
struct SplitMeans {
  uint32_t high[4];
  uint32_t low[4];
};

__device__ inline SplitMeans split_means(const float (&mean)[8]) {
  SplitMeans means;
#pragma unroll
  for (int t = 0; t < 4; ++t) {
    means.high[t] = arch::pack_elements<arch::BFloat16>(mean[2 * t], mean[2 * t + 1]);
    const arch::FloatPair rounded = arch::unpack_elements<arch::BFloat16>(means.high[t]);
    means.low[t] = arch::pack_elements<arch::BFloat16>(mean[2 * t] - rounded.low,
                                                       mean[2 * t + 1] - rounded.high);
  }
  return means;
}

/// Writes 8 means per lane as fragments. Neighbouring lanes hold the two halves of 16 dims and
/// swap, so that each writes whole ones.
template <typename Traits>
__device__ inline void store_means(const SplitMeans& means, SplitFragment* pooled, int64_t slot) {
  const auto& high = means.high;
  const auto& low = means.low;
  const int lane = device::lane_index();
  const bool odd = lane % 2 != 0;
  uint32_t other_high[2], other_low[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    other_high[i] = __shfl_xor_sync(device::kFullWarp, odd ? high[i] : high[2 + i], 1);
    other_low[i] = __shfl_xor_sync(device::kFullWarp, odd ? low[i] : low[2 + i], 1);
  }
  if (lane >= Traits::kLanesPerRow) return;
  constexpr int kSteps = Traits::kPaddedDim / kGroupDims;
  SplitFragment* group = pooled + (slot / kGroupMeans * kSteps + lane / 2) * device::kWarpThreads +
                         slot % kGroupMeans * 4 + (odd ? 2 : 0);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    group[i] = odd ? SplitFragment{{other_high[i], high[2 + i]}, {other_low[i], low[2 + i]}}
                   : SplitFragment{{high[i], other_high[i]}, {low[i], other_low[i]}};
  }
}

/// One warp per block and head, padding included. Heads of one block are neighbours, because their
/// rows are.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads)
    pool_rows_kernel(const __grid_constant__ PoolParams params) {
  int64_t item = int64_t{blockIdx.x} * Traits::kWarps + threadIdx.x / device::kWarpThreads;
  const int64_t key_items = params.keys.num_heads * params.keys.slots;
  const PoolHeads& heads = item < key_items ? params.keys : params.queries;
  if (item >= key_items) item -= key_items;
  if (item >= heads.num_heads * heads.slots) return;  // The whole warp.

  const int64_t block = item / heads.num_heads;
  const auto head = static_cast<int32_t>(item % heads.num_heads);
  const int64_t left = heads.num_rows - block * kBlock;
  const int32_t num_rows = left > kBlock ? kBlock : left > 0 ? static_cast<int32_t>(left) : 0;
  float mean[8] = {};
  sum_rows<Traits>(heads.rows[head], block * kBlock, num_rows, params.head_dim, mean);
  const float inverse = num_rows > 0 ? 1.0f / static_cast<float>(num_rows) : 0.0f;
#pragma unroll
  for (float& value : mean) value *= inverse;
  SplitFragment* pooled = heads.pooled + head * num_fragments(heads.slots, Traits::kPaddedDim);
  const int64_t slot = slot_of(heads.order, block);
  if constexpr (Traits::kKeysInPanels) {
    if (&heads == &params.keys) return Traits::store_key(split_means(mean), pooled, slot);
  }
  store_means<Traits>(split_means(mean), pooled, slot);
}

/// Enqueues the pooling of both tensors. Traits: PoolTraits, or tma/pool_panels.h's.
template <typename Traits>
void launch_pool_rows(const PoolParams& params, cudaStream_t stream) {
  const int64_t items =
      params.keys.num_heads * params.keys.slots + params.queries.num_heads * params.queries.slots;
  const auto blocks = static_cast<unsigned>((items + Traits::kWarps - 1) / Traits::kWarps);
  arch::launch("pool_rows", &pool_rows_kernel<Traits>, {dim3(blocks), dim3(Traits::kThreads)},
               stream, params);
}

}  // namespace minference::cuda
