// Host side of the two passes over K on sm90. Included only by instances/.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/check.h"
#include "cuda/arch/launch.h"
#include "cuda/sm90/estimate_vertical_slash.h"
#include "cuda/sm90/estimate_vertical_slash_statistics.cuh"
#include "cuda/sm90/estimate_vertical_slash_sums.cuh"
#include "cuda/tma/tensor_maps.h"

namespace minference::sm90 {

namespace vertical_slash {

inline CUtensorMap key_map(const Shape& shape, const ConstTokens& k) {
  return tma::tensor_map(k, key_sizes(shape),
                         {.dims = kPanelDims, .swizzle = arch::Swizzle::k128B, .rows = kStepKeys});
}

template <typename Traits, template <typename> typename Own>
arch::LaunchShape launch_shape(dim3 grid, int num_heads) {
  const int threads = (num_warpgroups(num_heads) + 1) * device::kWarpgroupThreads;
  return {.grid = grid,
          .block = dim3(static_cast<unsigned>(threads)),
          .shared_bytes = score_shared_bytes<Traits, Own<Traits>>(num_heads),
          .max_shared_bytes = score_shared_bytes<Traits, Own<Traits>>(Traits::kGroupHeads)};
}

template <typename Traits>
void launch_row_statistics(const Shape& shape, const sm80::ScoreArgs& args, dim3 grid,
                           int num_heads, cudaStream_t stream) {
  arch::launch("row_statistics", &row_statistics_sm90_kernel<Traits>,
               launch_shape<Traits, WarpgroupStatistics>(grid, num_heads), stream, args,
               key_map(shape, args.k));
}

template <typename Traits>
void launch_score_sums(const Shape& shape, const sm80::ScoreArgs& args, dim3 grid, int num_heads,
                       cudaStream_t stream) {
  arch::launch("score_sums", &score_sums_sm90_kernel<Traits>,
               launch_shape<Traits, WarpgroupSums>(grid, num_heads), stream, args,
               key_map(shape, args.k));
}

template <typename Traits>
constexpr sm80::ScoreKernels kernels_of() {
  static_assert(Traits::kGroupHeads <= sm80::kMaxGroupHeads);
  return {.row_statistics = &launch_row_statistics<Traits>,
          .score_sums = &launch_score_sums<Traits>,
          .max_heads = Traits::kGroupHeads,
          .key_step = KeyRanges::kChunkStep,
          .blocks = 528};  // Four rounds of one on each of 132 multiprocessors.
}

}  // namespace vertical_slash

/// The instance with the least padding.
template <typename Element>
sm80::ScoreKernels score_kernels(int32_t head_dim) {
  struct Instance {
    int32_t head_dim;
    sm80::ScoreKernels kernels;
  };
  static constexpr Instance kInstances[] = {
      {64, vertical_slash::kernels_of<vertical_slash::VerticalSlashTraits<Element, 64>>()},
      {96, vertical_slash::kernels_of<vertical_slash::VerticalSlashTraits<Element, 96>>()},
      {128, vertical_slash::kernels_of<vertical_slash::VerticalSlashTraits<Element, 128>>()},
      {192, vertical_slash::kernels_of<vertical_slash::VerticalSlashTraits<Element, 192>>()},
      {256, vertical_slash::kernels_of<vertical_slash::VerticalSlashTraits<Element, 256>>()},
  };
  for (const Instance& instance : kInstances) {
    if (head_dim <= instance.head_dim) return instance.kernels;
  }
  detail::throw_error(MINF_ERROR_UNSUPPORTED,
                      detail::concat("q: expected head_dim <= 256, got ", head_dim));
}

}  // namespace minference::sm90
