// The head_dims that kernels are compiled for; others are padded. This is the only list:
// sources.cmake reads the two arrays below and makes a translation unit for each entry.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>

#include "core/arguments.h"
#include "core/check.h"
#include "cuda/arch/element.h"

namespace minference::cuda {

/// Dims of q and k, for estimates. Ascending.
inline constexpr int32_t kHeadDims[] = {64, 96, 128, 192, 256};

/// Dims of q and k, and of v and out. The smallest padding comes first.
struct AttentionDims {
  int32_t dim;
  int32_t dim_v;
};
inline constexpr AttentionDims kAttentionDims[] = {{64, 64},   {96, 96},   {128, 128},
                                                   {192, 128}, {192, 192}, {256, 256}};
inline constexpr int32_t kMaxDimV = std::end(kAttentionDims)[-1].dim_v;
static_assert(kMaxDimV == MINF_MAX_HEAD_DIM && std::end(kHeadDims)[-1] == MINF_MAX_HEAD_DIM);

/// Returns what visit.operator()<Element>() returns for a dtype of 16 bits.
template <typename Visit>
auto with_element(DType dtype, const Visit& visit) {
  return dtype == DType::kBFloat16 ? visit.template operator()<arch::BFloat16>()
                                   : visit.template operator()<arch::Float16>();
}

/// Returns what visit.operator()<kDim>() returns for the first of kHeadDims that holds head_dim.
/// api/ admits no dims beyond the last one. Lambdas capture by [&]: a lambda without a capture
/// converts to a function pointer, and nvcc warns of the conversion.
template <std::size_t kIndex = 0, typename Visit>
auto with_head_dim(int32_t head_dim, const Visit& visit) {
  constexpr int32_t kDim = kHeadDims[kIndex];
  if constexpr (kIndex + 1 < std::size(kHeadDims)) {
    if (head_dim > kDim) return with_head_dim<kIndex + 1>(head_dim, visit);
  } else {
    MINF_ASSERT(head_dim <= kDim);
  }
  return visit.template operator()<kDim>();
}

/// Returns what visit.operator()<kDim, kDimV>() returns for the first of kAttentionDims that holds
/// head_dim and head_dim_v.
template <std::size_t kIndex = 0, typename Visit>
auto with_attention_dims(int32_t head_dim, int32_t head_dim_v, const Visit& visit) {
  constexpr AttentionDims kDims = kAttentionDims[kIndex];
  if constexpr (kIndex + 1 < std::size(kAttentionDims)) {
    if (head_dim > kDims.dim || head_dim_v > kDims.dim_v) {
      return with_attention_dims<kIndex + 1>(head_dim, head_dim_v, visit);
    }
  } else {
    MINF_ASSERT(head_dim <= kDims.dim && head_dim_v <= kDims.dim_v);
  }
  return visit.template operator()<kDims.dim, kDims.dim_v>();
}

}  // namespace minference::cuda
