// The kernels of sm90 by dtype and padded dims, what the host hands to them, and the stages with
// limits that only tests change.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/backend.h"
#include "cuda/common/estimate_block_sparse.h"
#include "cuda/common/estimate_vertical_slash.h"
#include "cuda/tma/attention_params.h"
#include "cuda/tma/tensor_maps.h"

namespace minference::sm90 {

// ---- Attention ----------------------------------------------------------------------------------

using tma::AttentionParams;

/// An instance of the kernel.
struct AttentionInstance {
  tma::PanelLayout panel;
  /// Enqueues the kernel on `num_blocks` blocks, of which a multiprocessor holds one.
  void (*launch)(const AttentionParams& params, int32_t num_blocks, cudaStream_t stream);
};

/// Defined in attention_kernel.h, and instantiated for each of cuda::kAttentionDims.
template <typename Element, int kDim, int kDimV>
AttentionInstance attention_instance();

using cuda::AttentionLimits;

/// The stage of stages.h, and the size of its work memory, with other limits.
std::size_t attention_bytes(const AttentionArgs& args, const Executor& executor,
                            const AttentionLimits& limits);
void attention(const AttentionArgs& args, Workspace workspace, const Executor& executor,
               const AttentionLimits& limits);

// ---- Estimation of block-sparse: all else is common/estimate_block_sparse.h's -------------------

/// Defined in estimate_block_sparse_kernel.h, and instantiated for each of cuda::kHeadDims.
template <int kPaddedDim>
cuda::block_sparse::Kernels block_sparse_kernels();

// ---- Estimation of vertical-slash: all else is common/estimate_vertical_slash.h's ---------------

inline tma::RowSizes key_sizes(const Shape& shape) {
  return {.dims = shape.head_dim,
          .rows = shape.lengths.seqlen_k,
          .heads = shape.num_heads_kv,
          .batch = shape.batch};
}

/// Defined in estimate_vertical_slash_kernels.h, and instantiated for each of cuda::kHeadDims.
template <typename Element, int kHeadDim>
cuda::ScoreKernels score_kernels();

/// The kernels of the smallest padded head_dim that fits.
cuda::ScoreKernels score_kernels(const Shape& shape);

}  // namespace minference::sm90
