// Stage 3 on sm90: launches of the attention kernel. Included by instances/ alone.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/arch/launch.h"
#include "cuda/sm90/attention.h"
#include "cuda/sm90/attention_kernel.h"

namespace minference::sm90 {

template <typename Traits>
void launch_attention(const AttentionParams& params, int32_t num_blocks, cudaStream_t stream) {
  arch::launch("attention", &attention_kernel<Traits>,
               {dim3(static_cast<unsigned>(num_blocks)), dim3(Traits::kThreads),
                sizeof(typename Traits::SharedStorage)},
               stream, params);
}

}  // namespace minference::sm90
