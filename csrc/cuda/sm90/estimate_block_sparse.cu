// Stage 1 of block-sparse on sm90, the host side: the kernels of the least padded head_dim.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/common/head_dims.h"
#include "cuda/sm90/kernels.h"
#include "cuda/sm90/stages.h"

namespace minference::sm90 {
namespace {

cuda::block_sparse::Kernels kernels_for(const Shape& shape) {
  return cuda::with_head_dim(shape.head_dim,
                             [&]<int kPaddedDim>() { return block_sparse_kernels<kPaddedDim>(); });
}

}  // namespace

std::size_t estimate_block_sparse_bytes(const EstimateBlockSparseArgs& args,
                                        const cuda::BlockSparseLimits& limits) {
  return cuda::estimate_block_sparse_bytes(args, kernels_for(args.shape), limits);
}

void estimate_block_sparse(const EstimateBlockSparseArgs& args, Workspace workspace,
                           const Executor& executor, const cuda::BlockSparseLimits& limits) {
  cuda::estimate_block_sparse(args, kernels_for(args.shape), limits, workspace,
                              static_cast<cudaStream_t>(executor.stream));
}

std::size_t estimate_block_sparse_bytes(const EstimateBlockSparseArgs& args, const Executor&) {
  return estimate_block_sparse_bytes(args, cuda::BlockSparseLimits{});
}

void estimate_block_sparse(const EstimateBlockSparseArgs& args, Workspace workspace,
                           const Executor& executor) {
  estimate_block_sparse(args, workspace, executor, cuda::BlockSparseLimits{});
}

}  // namespace minference::sm90
