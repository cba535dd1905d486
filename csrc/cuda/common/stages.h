// The stages that all CUDA backends share, as their tables list them. Arguments: core/backend.h.
//
// All stages, these and the backends' own, only enqueue on executor.stream: no allocation, no
// synchronisation, nothing that a graph cannot replay. Host arrays in the arguments reach the
// device by value, in kernel parameters.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/backend.h"
#include "cuda/machine.h"

namespace minference::cuda {

void plan_vertical_slash(const PlanArgs& args, const Executor& executor);
void count_key_tiles(const CountTilesArgs& args, const Executor& executor);
void fill_lists(std::span<int32_t> lists, const Executor& executor);
void merge_attention(const MergeArgs& args, const Executor& executor);

namespace block_sparse {
struct Kernels;  // common/estimate_block_sparse.h
}

/// The kernels of a backend for a shape.
using BlockSparseKernels = block_sparse::Kernels (*)(const Shape&);

/// Block-sparse estimation with a backend's kernels, as its table lists it.
std::size_t estimate_block_sparse_bytes(const EstimateBlockSparseArgs& args,
                                        BlockSparseKernels kernels);
void estimate_block_sparse(const EstimateBlockSparseArgs& args, BlockSparseKernels kernels,
                           Workspace workspace, const Executor& executor);

template <BlockSparseKernels kKernels>
std::size_t block_sparse_bytes(const EstimateBlockSparseArgs& args, const Executor&) {
  return estimate_block_sparse_bytes(args, kKernels);
}
template <BlockSparseKernels kKernels>
void estimate_block_sparse_with(const EstimateBlockSparseArgs& args, Workspace workspace,
                                const Executor& executor) {
  estimate_block_sparse(args, kKernels, workspace, executor);
}

/// Entries of a backend's list of estimators.
template <auto kBytes, auto kEstimate>
inline constexpr Estimator kVerticalSlash =
    kVerticalSlashEstimator<kBytes, on_device_with_workspace<kEstimate, EstimateVerticalSlashArgs>>;
template <BlockSparseKernels kKernels>
inline constexpr Estimator kBlockSparse = kBlockSparseEstimator<
    block_sparse_bytes<kKernels>,
    on_device_with_workspace<estimate_block_sparse_with<kKernels>, EstimateBlockSparseArgs>>;

}  // namespace minference::cuda
