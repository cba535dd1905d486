// Attention kernels, head_dim padded to 96, head_dim_v to 96.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm80/attention_launch.h"

namespace minference::sm80 {

template int32_t resident_attention_blocks<AttentionTraits<arch::BFloat16, 96, 96>>();
template int32_t resident_attention_blocks<AttentionTraits<arch::Float16, 96, 96>>();
template void launch_attention<AttentionTraits<arch::BFloat16, 96, 96>>(const AttentionParams&,
                                                                        int32_t, cudaStream_t);
template void launch_attention<AttentionTraits<arch::Float16, 96, 96>>(const AttentionParams&,
                                                                       int32_t, cudaStream_t);

}  // namespace minference::sm80
