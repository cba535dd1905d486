// threadIdx, blockIdx, blockDim, gridDim: see indices.h.
// SPDX-License-Identifier: Apache-2.0
#include "indices.h"

namespace simt::engine::indices {

uint3 thread{};
uint3 block{};
dim3 block_extent(0, 0, 0);
dim3 grid_extent(0, 0, 0);

}  // namespace simt::engine::indices
