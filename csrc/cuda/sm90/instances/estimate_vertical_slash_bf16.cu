// Stage 1 of vertical-slash on sm90, bf16: all head_dims.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm90/estimate_vertical_slash_launch.cuh"

minference::sm80::ScoreKernels minference::sm90::bf16_score_kernels(int32_t head_dim) {
  return score_kernels<arch::BFloat16>(head_dim);
}
