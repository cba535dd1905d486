// The variables behind threadIdx and the others, writable for their owner.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector_types.h>

namespace simt::engine::indices {

extern uint3 thread __asm__("threadIdx");
extern uint3 block __asm__("blockIdx");
extern dim3 block_extent __asm__("blockDim");
extern dim3 grid_extent __asm__("gridDim");

}  // namespace simt::engine::indices
