// Stage 1 of vertical-slash on sm90: sm80's, but for the two passes over K, which are products on
// wgmma of keys that TMA fetches; bench/hopper.md has the arithmetic. sm80's passes
// serve what TMA cannot address. No head_dim or number of heads is left to them: with few heads
// both are bound by memory, and by exponentials at 64 dims, of which there are equally many.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "cuda/sm90/estimate_vertical_slash.h"
#include "cuda/sm90/stages.h"

namespace minference::sm90 {

sm80::ScoreKernels score_kernels(const Shape& shape) {
  return shape.dtype == DType::kBFloat16 ? bf16_score_kernels(shape.head_dim)
                                         : fp16_score_kernels(shape.head_dim);
}

/// Enough whatever the strides of K.
std::size_t estimate_vertical_slash_bytes(const EstimateVerticalSlashArgs& args, const Executor&) {
  return std::max(sm80::estimate_vertical_slash_bytes(args, score_kernels(args.shape)),
                  sm80::estimate_vertical_slash_bytes(args, sm80::score_kernels(args.shape)));
}

void estimate_vertical_slash(const EstimateVerticalSlashArgs& args, Workspace workspace,
                             const Executor& executor) {
  const bool has_map = tma::has_tensor_map(args.k, key_sizes(args.shape));
  const sm80::ScoreKernels kernels =
      has_map ? score_kernels(args.shape) : sm80::score_kernels(args.shape);
  sm80::estimate_vertical_slash(args, kernels, workspace,
                                static_cast<cudaStream_t>(executor.stream));
}

}  // namespace minference::sm90
