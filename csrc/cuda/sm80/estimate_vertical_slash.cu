// Stage 1 of vertical-slash on sm80, the host side: which kernels.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/common/head_dims.h"
#include "cuda/sm80/kernels.h"
#include "cuda/sm80/stages.h"

namespace minference::sm80 {

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

std::size_t estimate_vertical_slash_bytes(const EstimateVerticalSlashArgs& args, const Executor&) {
  return cuda::estimate_vertical_slash_bytes(args, score_kernels(args.shape));
}

void estimate_vertical_slash(const EstimateVerticalSlashArgs& args, Workspace workspace,
                             const Executor& executor) {
  cuda::estimate_vertical_slash(args, score_kernels(args.shape), workspace,
                                static_cast<cudaStream_t>(executor.stream));
}

}  // namespace minference::sm80
