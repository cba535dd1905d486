// Stage 3 on sm80: launches of the attention kernel. Included by instances/ alone.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/arch/launch.h"
#include "cuda/sm80/attention.h"
#include "cuda/sm80/attention_kernel.h"

namespace minference::sm80 {

template <typename Traits>
int32_t resident_attention_blocks() {
  return arch::resident_blocks("attention", &attention_kernel<Traits>, Traits::kThreads,
                               sizeof(typename Traits::SharedStorage));
}

template <typename Traits, typename Rows>
RowSteps row_steps(const ConstTokens& tensor) {
  using Element = typename Traits::Element;
  const int64_t next = tensor.token_stride * static_cast<int64_t>(sizeof(Element));
  return {.next = next, .next_copied = CopyShare<Rows, Traits::kThreads>::kStep * next};
}

template <typename Traits>
void launch_attention(const AttentionParams& params, int32_t num_blocks, cudaStream_t stream) {
  AttentionParams with_steps = params;
  with_steps.k_steps = row_steps<Traits, typename Traits::QueryRows>(params.k);
  with_steps.v_steps = row_steps<Traits, typename Traits::ValueRows>(params.v);
  arch::launch("attention", &attention_kernel<Traits>,
               {dim3(static_cast<unsigned>(num_blocks)), dim3(Traits::kThreads),
                sizeof(typename Traits::SharedStorage)},
               stream, with_steps);
}

}  // namespace minference::sm80
