// Kernels of block-sparse estimation, head_dim padded to 192.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/common/pool_rows_kernel.h"
#include "cuda/sm80/estimate_block_sparse_kernel.h"

namespace minference {

template void cuda::launch_pool_rows<cuda::PoolTraits<arch::BFloat16, 192>>(const cuda::PoolParams&,
                                                                            cudaStream_t);
template void cuda::launch_pool_rows<cuda::PoolTraits<arch::Float16, 192>>(const cuda::PoolParams&,
                                                                           cudaStream_t);
template void sm80::block_sparse::launch_select_blocks<sm80::block_sparse::SelectBlocksTraits<192>>(
    const sm80::block_sparse::SelectBlocksParams&, cudaStream_t);

}  // namespace minference
