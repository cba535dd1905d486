// Stage 1 of block-sparse on sm90, the host side: its kernels, for estimate_block_sparse_waves.h.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/arch/element.h"
#include "cuda/sm80/estimate_block_sparse_waves.h"
#include "cuda/sm90/estimate_block_sparse.h"
#include "cuda/sm90/stages.h"

namespace minference::sm90 {
namespace {

using sm80::BlockSparseLimits;
using sm80::block_sparse::Estimator;
using sm80::block_sparse::Instance;
using sm80::block_sparse::instance_for;

template <int kPaddedDim>
constexpr Instance instance() {
  return {kPaddedDim, 2 * sm80::block_sparse::kTileRows,
          &cuda::launch_pool_rows<tma::PoolPanelTraits<arch::BFloat16, kPaddedDim>>,
          &cuda::launch_pool_rows<tma::PoolPanelTraits<arch::Float16, kPaddedDim>>,
          &block_sparse::launch_select_blocks<block_sparse::WgmmaSelectTraits<kPaddedDim>>};
}

constexpr Instance kInstances[] = {instance<64>(), instance<96>(), instance<128>(), instance<192>(),
                                   instance<256>()};

}  // namespace

std::size_t estimate_block_sparse_bytes(const EstimateBlockSparseArgs& args,
                                        const BlockSparseLimits& limits) {
  return Estimator(args, limits, instance_for(kInstances, args.shape.head_dim)).bytes();
}

void estimate_block_sparse(const EstimateBlockSparseArgs& args, Workspace workspace,
                           const Executor& executor, const BlockSparseLimits& limits) {
  Estimator(args, limits, instance_for(kInstances, args.shape.head_dim))
      .run(workspace, static_cast<cudaStream_t>(executor.stream));
}

std::size_t estimate_block_sparse_bytes(const EstimateBlockSparseArgs& args, const Executor&) {
  return sm90::estimate_block_sparse_bytes(args, BlockSparseLimits{});
}

void estimate_block_sparse(const EstimateBlockSparseArgs& args, Workspace workspace,
                           const Executor& executor) {
  sm90::estimate_block_sparse(args, workspace, executor, BlockSparseLimits{});
}

}  // namespace minference::sm90
