// One-instruction arithmetic, and values that the compiler must not see through or move.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

#include "cuda/arch/emulation.h"

namespace minference::arch {

/// 2^x within 2 ulp; results below 2^-126 are 0. PTX ISA: ex2.approx.ftz.f32.
__device__ inline float exp2_approx(float x) {
#if defined(MINF_SIMT)
  return simt::exp2_flushed(x);
#else
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#endif
}

/// 1 / x within 1 ulp; x below 2^-126 counts as 0. PTX ISA: rcp.approx.ftz.f32.
__device__ inline float reciprocal_approx(float x) {
#if defined(MINF_SIMT)
  return 1.0f / x;
#else
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#endif
}

// ---- Hidden from the compiler -------------------------------------------------------------------

/// Returns `value`. The compiler does not hoist what is computed from it out of the loop that calls
/// this: addresses, which cost one instruction each to compute, but one register each to keep. No
/// instruction.
__device__ inline uint32_t opaque(uint32_t value) {
#if !defined(MINF_SIMT)
  asm volatile("" : "+r"(value));
#endif
  return value;
}

/// Everything that `value` depends on comes before everything that follows; `value` is not
/// negative. It keeps work beside an asynchronous operation: the compiler could otherwise move the
/// work behind the wait for that operation. Two instructions. PTX ISA: setp, trap.
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
