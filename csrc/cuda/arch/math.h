// One-instruction arithmetic.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

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

}  // namespace minference::arch
