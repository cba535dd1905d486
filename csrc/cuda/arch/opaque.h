// A value whose origin the compiler does not see.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/emulation.h"

namespace minference::arch {

/// `value`. What is computed from it is not hoisted out of the loop that calls this: addresses that
/// cost an instruction each to make, and a register each to keep. No instruction.
__device__ inline uint32_t opaque(uint32_t value) {
#if !defined(MINF_SIMT)
  asm volatile("" : "+r"(value));
#endif
  return value;
}

}  // namespace minference::arch
