// Stage 1 of block-sparse on sm90: sm80's but for how pooled keys lie in memory and how products
// are made.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/sm80/estimate_block_sparse.h"

namespace minference::tma {

/// pool_panels.h
template <typename Element, int kPaddedDim>
struct PoolPanelTraits;

}  // namespace minference::tma

namespace minference::sm90::block_sparse {

/// Compile-time shape of a launch: estimate_block_sparse_traits.h.
template <int kPaddedDim>
struct WgmmaSelectTraits;

/// Enqueues the selection for all row blocks of a wave's targets. Traits: WgmmaSelectTraits.
template <typename Traits>
void launch_select_blocks(const sm80::block_sparse::SelectBlocksParams& params,
                          cudaStream_t stream);

}  // namespace minference::sm90::block_sparse

namespace minference::sm90 {

/// The stage of stages.h, and its bytes of work memory, with other limits.
std::size_t estimate_block_sparse_bytes(const EstimateBlockSparseArgs& args,
                                        const sm80::BlockSparseLimits& limits);
void estimate_block_sparse(const EstimateBlockSparseArgs& args, Workspace workspace,
                           const Executor& executor, const sm80::BlockSparseLimits& limits);

}  // namespace minference::sm90
