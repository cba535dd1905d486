// Stage 1 of block-sparse on sm80, second kernel: scores of pooled queries against pooled keys, and
// the blocks selected by them. No score reaches device memory.
//
// A thread block takes 64 row blocks of one head, a warp 16 of them, queries in registers; pooled
// keys stream through shared memory, and what a row block selects stays in its warp. At head_dim
// 128, bf16, 32 query and 8 KV heads, 1M tokens (16384 row and key blocks, half of the pairs in
// sight, 4.3e9 scores):
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

#include "cuda/arch/launch.h"
#include "cuda/arch/shared.h"
#include "cuda/sm80/estimate_block_sparse.h"
#include "cuda/sm80/estimate_block_sparse_selection.h"

namespace minference::sm80::block_sparse {

/// Scores by mma.sync: the Stream of estimate_block_sparse_selection.h.
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

  // 1. Which head and row blocks: late ones, which see most, first.
  const auto num_tiles =
      static_cast<int32_t>((int64_t{params.lengths.row_blocks()} + kTileRows - 1) / kTileRows);
  const auto slot = static_cast<int32_t>(blockIdx.x % static_cast<unsigned>(params.num_targets));
  const int32_t tile =
      num_tiles - 1 - static_cast<int32_t>(blockIdx.x / static_cast<unsigned>(params.num_targets));
  const TileLists lists{
      .target = params.targets[slot], .lengths = params.lengths, .first_row = tile * kTileRows};
  const int last_row = min(kTileRows, params.lengths.row_blocks() - lists.first_row) - 1;
  const BlockRow last = lists.row(last_row);
  if (!by_mass && last.allowed <= lists.target.top_k) return write_all(lists);

  // 2. Pooled queries to registers; from here on their scores can be streamed.
  MmaStream<Traits> stream{
      storage, params.keys + lists.target.key_head * params.key_fragments, params.multiplier, {}};
  load_queries(stream.queries, params.queries + slot * params.query_fragments +
                                   cuda::num_fragments(lists.first_row, Traits::kPaddedDim));
  select_rows(storage.selection, params, lists, last, stream);
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
