// Products of pooled queries and pooled keys, streamed past a warp: nothing is kept of them but
// what a consumer takes. Used several times by those who need the scores again: every pass runs the
// same instructions in the same order on the same operands, so a score has the same bits each time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cfloat>
#include <cstdint>

#include "cuda/arch/async_copy.h"
#include "cuda/arch/element.h"
#include "cuda/arch/matrix.h"
#include "cuda/sm80/estimate_block_sparse_traits.h"

namespace minference::sm80::block_sparse {

/// The pooled queries of a warp's 16 row blocks, as operand A: 4 * kSteps registers twice.
template <typename Traits>
struct QueryFragments {
  uint32_t high[Traits::kSteps][4];
  uint32_t low[Traits::kSteps][4];
};

/// Scores of the lane's two row blocks (g and g + 8 of the warp's 16, lane = 4 g + t) against key
/// blocks first + 4 t .. first + 4 t + 3 of a group.
struct LaneScores {
  float of[2][kLaneKeys];
};

template <typename Traits>
__device__ inline void load_queries(QueryFragments<Traits>& queries,
                                    const cuda::SplitFragment* tile) {
  const int lane = device::lane_index();
  const int warp = tile_warp();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const cuda::SplitFragment* rows =
        tile + (2 * warp + half) * Traits::kSteps * device::kWarpThreads + lane;
#pragma unroll
    for (int step = 0; step < Traits::kSteps; ++step) {
      const cuda::SplitFragment part = rows[step * device::kWarpThreads];
#pragma unroll
      for (int word = 0; word < 2; ++word) {
        queries.high[step][2 * word + half] = part.high[word];
        queries.low[step][2 * word + half] = part.low[word];
      }
    }
  }
}

template <typename Traits>
__device__ inline void load_key_tile(cuda::SplitFragment* stage, const cuda::SplitFragment* keys,
                                     int32_t tile) {
  const auto thread = static_cast<int>(threadIdx.x);
  const cuda::SplitFragment* source = keys + int64_t{tile} * Traits::kTileFragments + thread;
#pragma unroll
  for (int i = 0; i < Traits::kTileFragments; i += Traits::kThreads) {
    arch::cp_async_16(&stage[i + thread], &source[i]);
  }
  arch::cp_async_commit();
}

/// A sum times `multiplier`, without negative zeros. What is not finite, for there was a NaN or an
/// infinity in the row block or the key block, becomes the lowest score: the last choice.
__device__ inline float score_of_sum(float sum, float multiplier) {
  const float score = __fmaf_rn(sum, multiplier, 0.0f);
  return fabsf(score) <= FLT_MAX ? score : -FLT_MAX;
}

template <typename Traits>
__device__ inline LaneScores score_group(const QueryFragments<Traits>& queries,
                                         const cuda::SplitFragment* group, float multiplier) {
  const int lane = device::lane_index();
  // Three sums per product of 16 x 8, for independent work: one waits 18 to 33 cycles for itself.
  float high[2][4] = {}, cross[2][4] = {}, cross_low[2][4] = {};
#pragma unroll
  for (int step = 0; step < Traits::kSteps; ++step) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const cuda::SplitFragment keys =
          group[(j * Traits::kSteps + step) * device::kWarpThreads + lane];
      arch::mma_m16n8k16<arch::BFloat16>(high[j], queries.high[step], keys.high);
      arch::mma_m16n8k16<arch::BFloat16>(cross[j], queries.high[step], keys.low);
      arch::mma_m16n8k16<arch::BFloat16>(cross_low[j], queries.low[step], keys.high);
    }
  }
  LaneScores scores;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < kLaneKeys; ++i) {
      const int c = 2 * half + i % 2;
      scores.of[half][i] =
          score_of_sum(high[i / 2][c] + (cross[i / 2][c] + cross_low[i / 2][c]), multiplier);
    }
  }
  return scores;
}

/// Calls consume(first_block, scores) for key blocks [0, num_blocks) in ascending groups of 16, by
/// all threads of the block. The last groups may reach past num_blocks.
template <typename Traits, typename Consume>
__device__ inline void stream_scores(typename Traits::Storage& storage,
                                     const QueryFragments<Traits>& queries,
                                     const cuda::SplitFragment* keys, int32_t num_blocks,
                                     float multiplier, Consume&& consume) {
  constexpr int kGroupFragments = kGroupKeys / cuda::kGroupMeans * Traits::kSteps * 32;
  const int32_t num_tiles = (num_blocks + Traits::kTileKeys - 1) / Traits::kTileKeys;
  if (num_tiles > 0) load_key_tile<Traits>(storage.keys[0], keys, /*tile=*/0);
#pragma unroll 1
  for (int32_t tile = 0; tile < num_tiles; ++tile) {
    arch::cp_async_wait<0>();
    // The tile has landed for all, and all have left the other stage.
    __syncthreads();
    if (tile + 1 < num_tiles) {
      load_key_tile<Traits>(storage.keys[(tile + 1) % Traits::kStages], keys, tile + 1);
    }
    const cuda::SplitFragment* stage = storage.keys[tile % Traits::kStages];
#pragma unroll 1
    for (int group = 0; group < Traits::kTileKeys / kGroupKeys; ++group) {
      consume(tile * Traits::kTileKeys + group * kGroupKeys,
              score_group<Traits>(queries, stage + group * kGroupFragments, multiplier));
    }
  }
  __syncthreads();  // All have left both stages: another pass may load.
}

}  // namespace minference::sm80::block_sparse
