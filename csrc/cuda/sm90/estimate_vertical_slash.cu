// Stage 1 of vertical-slash on sm90: sm80's stage with other passes over K, which are products on
// wgmma of keys that TMA loads; docs/hopper.md has the arithmetic. sm80's passes serve calls that
// TMA cannot address. No head_dim or number of heads is left to them: with few heads both are bound
// by memory, and at 64 dims by exponentials, of which both have equally many.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "cuda/common/head_dims.h"
#include "cuda/sm80/stages.h"
#include "cuda/sm90/kernels.h"
#include "cuda/sm90/stages.h"

namespace minference::sm90 {

cuda::block_sparse::Kernels block_sparse_kernels(const Shape& shape) {
  return cuda::with_head_dim(shape.head_dim,
                             [&]<int kPaddedDim>() { return block_sparse_kernels<kPaddedDim>(); });
}

cuda::ScoreKernels score_kernels(const Shape& shape) {
  return cuda::with_element(shape.dtype, [&]<typename Element>() {
    return cuda::with_head_dim(shape.head_dim,
                               [&]<int kHeadDim>() { return score_kernels<Element, kHeadDim>(); });
  });
}

/// Enough for any strides of K.
std::size_t estimate_vertical_slash_bytes(const EstimateVerticalSlashArgs& args,
                                          const Executor& executor) {
  return std::max(cuda::estimate_vertical_slash_bytes(args, score_kernels(args.shape)),
                  sm80::estimate_vertical_slash_bytes(args, executor));
}

void estimate_vertical_slash(const EstimateVerticalSlashArgs& args, Workspace workspace,
                             const Executor& executor) {
  if (!tma::has_tensor_map(args.k.tensor, key_sizes(args.shape))) {
    return sm80::estimate_vertical_slash(args, workspace, executor);
  }
  cuda::estimate_vertical_slash(args, score_kernels(args.shape), workspace,
                                static_cast<cudaStream_t>(executor.stream));
}

}  // namespace minference::sm90
