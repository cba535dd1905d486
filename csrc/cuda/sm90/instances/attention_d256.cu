// Attention kernels for Hopper, head_dim padded to 256, head_dim_v to 256.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm90/attention_launch.h"

namespace minference::sm90 {

template void launch_attention<AttentionTraits<arch::BFloat16, 256, 256>>(const AttentionParams&,
                                                                          int32_t, cudaStream_t);
template void launch_attention<AttentionTraits<arch::Float16, 256, 256>>(const AttentionParams&,
                                                                         int32_t, cudaStream_t);

}  // namespace minference::sm90
