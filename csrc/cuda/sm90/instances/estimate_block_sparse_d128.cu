// Kernels of block-sparse estimation on sm90, head_dim padded to 128.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/device/pool_panels.h"
#include "cuda/sm90/estimate_block_sparse_kernel.h"

namespace minference {

template void device::launch_pool_rows<device::PoolPanelTraits<arch::BFloat16, 128>>(
    const device::PoolParams&, cudaStream_t);
template void device::launch_pool_rows<device::PoolPanelTraits<arch::Float16, 128>>(
    const device::PoolParams&, cudaStream_t);
template void sm90::block_sparse::launch_select_blocks<sm90::block_sparse::WgmmaSelectTraits<128>>(
    const sm80::block_sparse::SelectBlocksParams&, cudaStream_t);

}  // namespace minference
