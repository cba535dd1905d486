// Attention kernels for Hopper, head_dim padded to 192, head_dim_v to 128.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm90/attention_launch.h"

namespace minference::sm90 {

template void launch_attention<AttentionTraits<arch::BFloat16, 192, 128>>(const AttentionParams&,
                                                                          int32_t, cudaStream_t);
template void launch_attention<AttentionTraits<arch::Float16, 192, 128>>(const AttentionParams&,
                                                                         int32_t, cudaStream_t);

}  // namespace minference::sm90
