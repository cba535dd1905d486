// Kernels of block-sparse estimation on sm90, head_dim padded to 64.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm90/estimate_block_sparse_kernel.h"
#include "cuda/tma/pool_panels.h"

namespace minference {

template void cuda::launch_pool_rows<tma::PoolPanelTraits<arch::BFloat16, 64>>(
    const cuda::PoolParams&, cudaStream_t);
template void cuda::launch_pool_rows<tma::PoolPanelTraits<arch::Float16, 64>>(
    const cuda::PoolParams&, cudaStream_t);
template void sm90::block_sparse::launch_select_blocks<sm90::block_sparse::WgmmaSelectTraits<64>>(
    const sm80::block_sparse::SelectBlocksParams&, cudaStream_t);

}  // namespace minference
