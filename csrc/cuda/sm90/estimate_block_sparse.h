// Stage 1 of block-sparse on sm90: its kernels. All else is common/estimate_block_sparse.h's.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "cuda/common/estimate_block_sparse.h"

namespace minference::sm90 {

/// Defined in estimate_block_sparse_kernel.h, and instantiated for each of cuda::kHeadDims.
template <int kPaddedDim>
cuda::block_sparse::Kernels block_sparse_kernels();

/// The stage of stages.h, and its bytes of work memory, with other limits.
std::size_t estimate_block_sparse_bytes(const EstimateBlockSparseArgs& args,
                                        const cuda::BlockSparseLimits& limits);
void estimate_block_sparse(const EstimateBlockSparseArgs& args, Workspace workspace,
                           const Executor& executor, const cuda::BlockSparseLimits& limits);

}  // namespace minference::sm90
