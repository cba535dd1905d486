// What the compiler is not to see through, and not to move.
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

/// Everything that `value`, which is not negative, depends on comes before everything that follows:
/// to work beside an asynchronous operation rather than after the wait for it, where the compiler
/// may move what does not need the wait. Two instructions. PTX ISA: setp, trap.
__device__ inline void finish_before(float value) {
#if defined(MINF_SIMT)
  static_cast<void>(value);
#else
  asm volatile("{.reg .pred p;\n setp.lt.f32 p, %0, 0f00000000;\n @p trap;}"
               :
               : "f"(value)
               : "memory");
#endif
}

}  // namespace minference::arch
