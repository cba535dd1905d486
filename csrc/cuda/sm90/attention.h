// Stage 3 on sm90: what the host hands to the attention kernel, and the kernels by dtype and dims.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/backend.h"
#include "cuda/tma/attention_params.h"
#include "cuda/tma/tensor_maps.h"

namespace minference::sm90 {

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

/// Limits that only tests change, to reach with small sizes what large ones do.
struct AttentionLimits {
  int32_t resident_blocks = 0;  // Thread blocks that run at a time; 0: as the device has room.
};

/// The stage of stages.h, and its bytes of work memory, with other limits.
std::size_t attention_bytes(const AttentionArgs& args, const Executor& executor,
                            const AttentionLimits& limits);
void attention(const AttentionArgs& args, Workspace workspace, const Executor& executor,
               const AttentionLimits& limits);

}  // namespace minference::sm90
