// The kernels of sm80 by dtype and padded dims, what the host hands to them, and the stages with
// limits that only tests change.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/backend.h"
#include "cuda/arch/emulation.h"
#include "cuda/common/attention_launch.h"
#include "cuda/common/estimate_block_sparse.h"
#include "cuda/common/estimate_vertical_slash.h"

namespace minference::sm80 {

// ---- Attention ----------------------------------------------------------------------------------

/// Bytes from one row of a head to another. They are kept in memory: in the loop they would be
/// 64-bit products.
struct RowSteps {
  int64_t next;         // To the next row.
  int64_t next_copied;  // To the next row that the same thread copies.
};

struct AttentionParams {
  Sequences sequences;
  ConstTokens q;
  KvRows k;
  KvRows v;
  Tokens out;
  RowValues lse;
  int32_t num_heads_q;
  int32_t group_size;
  int32_t head_dim;
  int32_t head_dim_v;
  float scale_log2;  // |softmax_scale| log2(e), or 1 where that is 0.
  float score_sign;  // 1, -1 or 0: the sign of softmax_scale.

  const HeadKeys* heads;  // [batch * num_heads_q]
  cuda::WorkTable table;
  unsigned long long* next_item;  // Items taken beyond the first of each block; 0 at the start.

  int32_t num_splits;         // Parts of the keys, each an item of its own; 1: whole items.
  int32_t num_partial_heads;  // batch * num_heads_q
  cuda::PartialResults partial;

  RowSteps k_steps;  // AttentionInstance::launch() sets them.
  RowSteps v_steps;
};

/// An instance of the kernel.
struct AttentionInstance {
  int32_t dim_v;  // Padded.
  bool pairs;     // Whether it computes two row blocks together.
  /// Thread blocks that a multiprocessor of the current device holds. @throws Error
  int32_t (*resident_blocks)();
  /// Enqueues the kernel on `num_blocks` blocks.
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

/// Defined in estimate_vertical_slash_kernels.h, and instantiated for each of cuda::kHeadDims.
template <typename Element, int kHeadDim>
cuda::ScoreKernels score_kernels();

/// The kernels of the smallest padded head_dim that fits.
cuda::ScoreKernels score_kernels(const Shape& shape);

}  // namespace minference::sm80
