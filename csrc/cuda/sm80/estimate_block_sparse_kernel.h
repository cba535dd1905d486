// Stage 1 of block-sparse on sm80, second kernel: scores of pooled queries against pooled keys, and
// the blocks that they select. No score reaches device memory.
//
// A thread block takes 64 row blocks of one head, each warp 16 of them, with the queries in
// registers. Pooled keys stream through shared memory, and what a row block selects stays in its
// warp. At head_dim 128, bf16, 32 query and 8 KV heads, 1M tokens (16384 row and key blocks, half
// of the pairs in sight, 4.3e9 scores):
//   tensor cores   3.3 TFLOP as split products: 7 ms if mma.sync reaches 450 TFLOP/s
//   L2             512 bytes per key block and 64 row blocks: 34 GB, 6 ms at 5.5 TB/s
//   shared memory  every warp reads every key: 5/6 of the cycles of the products at 128 bytes/cycle
//   issue          24 to 38 warp instructions per 32 scores: 3 to 5e9, 4 to 6 ms at 4 per cycle
// and 1/64 of that at 128K. Not 16 row blocks per thread block: 4 times the L2 traffic. Not 128:
// the candidates of 64 take 65 KiB as it is. Not one product of rounded means: see pool_rows.h.
//
// Storage is 99 KiB or less, 160 registers at 128 dims, 226 at 256: 2 thread blocks,
// 8 warps, per SM of sm_90; 1 on sm_80, sm_86, sm_89.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/async_copy.h"
#include "cuda/arch/element.h"
#include "cuda/arch/launch.h"
#include "cuda/arch/matrix.h"
#include "cuda/arch/shared.h"
#include "cuda/common/estimate_block_sparse_selection.h"
#include "cuda/common/pool_rows_kernel.h"
#include "cuda/sm80/kernels.h"

namespace minference::sm80::block_sparse {

namespace shared = cuda::block_sparse;

using shared::kGroupKeys;
using shared::kLaneKeys;
using shared::kTileRows;
using shared::kWarpRows;
using shared::LaneScores;
using shared::QueryFragments;
using shared::SelectBlocksParams;

// ---- Shape --------------------------------------------------------------------------------------

/// Compile-time shape of the thread block, and its shared memory.
template <int kPaddedDim_>
struct SelectBlocksTraits {
  static constexpr int kPaddedDim = kPaddedDim_;
  static constexpr int kSteps = kPaddedDim / cuda::kGroupDims;

  static constexpr int kWarps = kTileRows / kWarpRows;
  static constexpr int kThreads = kWarps * device::kWarpThreads;

  // As many as shared memory allows: saving registers for more would not help.
  static constexpr int kMinBlocks = 2;

  // 16 KiB a stage, 12 KiB at 96 and 192 dims; the next tile is in flight while one is used.
  static constexpr int kTileKeys = kPaddedDim <= 64 ? 64 : kPaddedDim <= 128 ? 32 : 16;
  static constexpr int kStages = 2;
  static constexpr int kTileFragments =
      static_cast<int>(cuda::num_fragments(kTileKeys, kPaddedDim));

  struct Storage {
    alignas(128) cuda::SplitFragment keys[kStages][kTileFragments];
    shared::SelectionStorage selection;
  };

  static_assert(kTileKeys % kGroupKeys == 0 && cuda::kPoolPadding % kTileKeys == 0);
  static_assert(kTileFragments % kThreads == 0);
  static_assert(sizeof(Storage) <= 99 * 1024, "must fit in a thread block of sm_86 and sm_89");
  static_assert(2 * (sizeof(Storage) + 1024) <= 228 * 1024, "two thread blocks per SM of sm_90");
};

// ---- Scores: products of pooled queries and keys, streamed past a warp --------------------------

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

template <typename Traits>
__device__ inline LaneScores score_group(const QueryFragments<Traits>& queries,
                                         const cuda::SplitFragment* group, float multiplier) {
  const int lane = device::lane_index();
  // Three sums per product of 16 x 8 make independent work: each alone waits 18 to 33 cycles.
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
      scores.of[half][i] = shared::score_of_sum(
          high[i / 2][c] + (cross[i / 2][c] + cross_low[i / 2][c]), multiplier);
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
    // The tile has landed for all threads, and all have finished with the other stage.
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
  __syncthreads();  // All have finished with both stages: another pass may load.
}

// ---- The kernel ---------------------------------------------------------------------------------

/// Scores by mma.sync: the Stream of common/estimate_block_sparse_selection.h.
template <typename Traits>
struct MmaStream {
  typename Traits::Storage& storage;
  const cuda::SplitFragment* keys;
  float multiplier;
  QueryFragments<Traits> queries;

  template <typename Consume>
  __device__ void pass(int32_t num_blocks, Consume&& consume) {
    stream_scores<Traits>(storage, queries, keys, num_blocks, multiplier, consume);
  }
  __device__ static bool any(bool condition) { return __syncthreads_or(condition) != 0; }
};

template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kMinBlocks)
    select_blocks_kernel(const __grid_constant__ SelectBlocksParams params) {
  auto& storage = arch::shared_storage<typename Traits::Storage>();
  const bool by_mass = params.share < 1;

  // 1. Which head and row blocks: late ones first, because they see most.
  const auto num_tiles =
      static_cast<int32_t>((int64_t{params.lengths.row_blocks()} + kTileRows - 1) / kTileRows);
  const auto slot = static_cast<int32_t>(blockIdx.x % static_cast<unsigned>(params.num_targets));
  const int32_t tile =
      num_tiles - 1 - static_cast<int32_t>(blockIdx.x / static_cast<unsigned>(params.num_targets));
  const shared::TileLists lists{
      .target = params.targets[slot], .lengths = params.lengths, .first_row = tile * kTileRows};
  const int last_row = min(kTileRows, params.lengths.row_blocks() - lists.first_row) - 1;
  const shared::BlockRow last = lists.row(last_row);
  if (!by_mass && last.allowed <= lists.target.top_k) return shared::write_all(lists);

  // 2. Pooled queries to registers; from here on their scores can be streamed.
  MmaStream<Traits> stream{
      storage, params.keys + lists.target.key_head * params.key_fragments, params.multiplier, {}};
  shared::load_queries(stream.queries,
                       params.queries + slot * params.query_fragments +
                           cuda::num_fragments(lists.first_row, Traits::kPaddedDim));
  shared::select_rows(storage.selection, params, lists, last, stream);
}

template <typename Traits>
void launch_select_blocks(const SelectBlocksParams& params, cudaStream_t stream) {
  const int64_t tiles = (int64_t{params.lengths.row_blocks()} + kTileRows - 1) / kTileRows;
  arch::launch("select_blocks", &select_blocks_kernel<Traits>,
               {dim3(static_cast<unsigned>(tiles * params.num_targets)), dim3(Traits::kThreads),
                sizeof(typename Traits::Storage)},
               stream, params);
}

}  // namespace minference::sm80::block_sparse

namespace minference::sm80 {

template <int kPaddedDim>
cuda::block_sparse::Kernels block_sparse_kernels() {
  return {kPaddedDim, cuda::block_sparse::kTileRows,
          &cuda::launch_pool_rows<cuda::PoolTraits<arch::BFloat16, kPaddedDim>>,
          &cuda::launch_pool_rows<cuda::PoolTraits<arch::Float16, kPaddedDim>>,
          &block_sparse::launch_select_blocks<block_sparse::SelectBlocksTraits<kPaddedDim>>};
}

}  // namespace minference::sm80
