// Kernels of block-sparse estimation on sm90, head_dim padded to 64.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/device/pool_panels.h"
#include "cuda/sm90/estimate_block_sparse_kernel.h"

namespace minference {

template void device::launch_pool_rows<device::PoolPanelTraits<arch::BFloat16, 64>>(
    const device::PoolParams&, cudaStream_t);
template void device::launch_pool_rows<device::PoolPanelTraits<arch::Float16, 64>>(
    const device::PoolParams&, cudaStream_t);
template void sm90::block_sparse::launch_select_blocks<sm90::block_sparse::WgmmaSelectTraits<64>>(
    const sm80::block_sparse::SelectBlocksParams&, cudaStream_t);

}  // namespace minference
