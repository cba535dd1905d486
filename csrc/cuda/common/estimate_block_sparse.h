// Stage 1 of block-sparse: what the host hands to the kernel that scores and selects, and the stage
// with the kernels that a backend brings.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/backend.h"
#include "core/pattern.h"
#include "cuda/arch/emulation.h"
#include "cuda/common/pool_rows.h"

namespace minference::cuda::block_sparse {

/// Row blocks of one (batch, query head) that four warps select for.
inline constexpr int kTileRows = 64;

/// Lists of up to this many blocks are selected in one pass over the keys. Longer ones would need
/// more candidates than fit in shared memory beside the keys.
inline constexpr int32_t kMaxStreamedTopK = 128;

/// One pass keeps block ids in 16 bits.
inline constexpr int32_t kMaxStreamedBlocks = 1 << 16;

/// One (batch, query head), in device memory.
struct SelectTarget {
  int32_t* block_index;  // [row_blocks, top_k]
  int64_t row_stride;
  int32_t top_k;
  int32_t key_head;  // Which of the wave's pooled key heads.
};
static_assert(sizeof(SelectTarget) % 4 == 0);

struct SelectBlocksParams {
  const SelectTarget* targets;   // The wave's, in device memory.
  const SplitFragment* queries;  // Pooled: [num_targets][query_fragments]
  const SplitFragment* keys;     // Pooled: [key heads][key_fragments], in the backend's order.
  int64_t query_fragments;
  int64_t key_fragments;
  Lengths lengths;
  int32_t num_targets;
  int32_t max_streamed_top_k;

  /// Factor of the scores. With a budget by mass it is softmax_scale * log2(e), so that masses are
  /// powers of two; otherwise it is 1, because scores have the order of the products.
  float multiplier;
  double share;  // Below 1: a list need hold only this share of the row block's softmax mass.
};

/// The kernels of a backend for head_dim up to padded_dim.
struct Kernels {
  int32_t padded_dim;
  int32_t row_padding;  // Pooled queries of a head are padded to a multiple of this.
  void (*pool_bfloat16)(const PoolParams&, cudaStream_t);
  void (*pool_float16)(const PoolParams&, cudaStream_t);
  /// Enqueues the selection for all row blocks of a wave's targets.
  void (*select)(const SelectBlocksParams&, cudaStream_t);
};

}  // namespace minference::cuda::block_sparse

namespace minference::cuda {

/// Limits that only tests change, to reach with small sizes what large ones do.
struct BlockSparseLimits {
  int32_t max_streamed_top_k = block_sparse::kMaxStreamedTopK;
  int64_t wave_bytes = int64_t{48} << 20;  // Pooled rows of a wave: an L2 cache's worth.
};

/// The stage with the given kernels, and the size of its work memory.
std::size_t estimate_block_sparse_bytes(const EstimateBlockSparseArgs& args,
                                        const block_sparse::Kernels& kernels,
                                        const BlockSparseLimits& limits);
void estimate_block_sparse(const EstimateBlockSparseArgs& args,
                           const block_sparse::Kernels& kernels, const BlockSparseLimits& limits,
                           Workspace workspace, cudaStream_t stream);

}  // namespace minference::cuda
