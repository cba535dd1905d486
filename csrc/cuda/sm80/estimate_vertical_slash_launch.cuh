// Host side of the two passes over K. Included only by instances/.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/check.h"
#include "cuda/arch/launch.h"
#include "cuda/sm80/estimate_vertical_slash.h"
#include "cuda/sm80/estimate_vertical_slash_statistics.cuh"
#include "cuda/sm80/estimate_vertical_slash_sums.cuh"

namespace minference::sm80 {

template <typename Traits>
void launch_row_statistics(const Shape&, const ScoreArgs& args, dim3 grid, int num_heads,
                           cudaStream_t stream) {
  arch::launch("row_statistics", &row_statistics_kernel<Traits>,
               {grid, dim3(static_cast<unsigned>(num_heads * kBlock)),
                sizeof(typename Traits::Keys::Buffers)},
               stream, args);
}

template <typename Traits>
void launch_score_sums(const Shape&, const ScoreArgs& args, dim3 grid, int num_heads,
                       cudaStream_t stream) {
  arch::launch("score_sums", &score_sums_kernel<Traits>,
               {grid, dim3(static_cast<unsigned>(num_heads * kBlock)),
                score_sums_shared_bytes<Traits>(num_heads),
                score_sums_shared_bytes<Traits>(Traits::kGroupHeads)},
               stream, args);
}

template <typename Traits>
constexpr ScoreKernels kernels_of() {
  return {.row_statistics = &launch_row_statistics<Traits>,
          .score_sums = &launch_score_sums<Traits>,
          .max_heads = Traits::kGroupHeads,
          .key_step = kBlock,
          .blocks = 1024};  // Four rounds of 2 on each of 132 multiprocessors.
}

/// The instance with the least padding.
template <typename Element>
ScoreKernels score_kernels(int32_t head_dim) {
  struct Instance {
    int32_t head_dim;
    ScoreKernels kernels;
  };
  static constexpr Instance kInstances[] = {
      {64, kernels_of<VerticalSlashTraits<Element, 64>>()},
      {96, kernels_of<VerticalSlashTraits<Element, 96>>()},
      {128, kernels_of<VerticalSlashTraits<Element, 128>>()},
      {192, kernels_of<VerticalSlashTraits<Element, 192>>()},
      {256, kernels_of<VerticalSlashTraits<Element, 256>>()},
  };
  for (const Instance& instance : kInstances) {
    if (head_dim <= instance.head_dim) return instance.kernels;
  }
  detail::throw_error(MINF_ERROR_UNSUPPORTED,
                      detail::concat("q: expected head_dim <= 256, got ", head_dim));
}

}  // namespace minference::sm80
