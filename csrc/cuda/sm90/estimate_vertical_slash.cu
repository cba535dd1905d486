// Stage 1 of vertical-slash on sm90: sm80's, but for the two passes over K, which are products on
// wgmma of keys that TMA fetches.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm90/estimate_vertical_slash.h"
#include "cuda/sm90/stages.h"

namespace minference::sm90 {

sm80::ScoreKernels score_kernels(const Shape& shape) {
  return shape.dtype == DType::kBFloat16 ? bf16_score_kernels(shape.head_dim)
                                         : fp16_score_kernels(shape.head_dim);
}

std::size_t estimate_vertical_slash_bytes(const EstimateVerticalSlashArgs& args, const Executor&) {
  return sm80::estimate_vertical_slash_bytes(args, score_kernels(args.shape));
}

void estimate_vertical_slash(const EstimateVerticalSlashArgs& args, Workspace workspace,
                             const Executor& executor) {
  sm80::estimate_vertical_slash(args, score_kernels(args.shape), workspace,
                                static_cast<cudaStream_t>(executor.stream));
}

}  // namespace minference::sm90
