// One thread of a warp, chosen by the hardware: what issues bulk copies (sm_90).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/emulation_sm90.h"

namespace minference::arch {

/// True in one lane of the warp, always the same one; all 32 lanes call it. Cheaper than comparing
/// threadIdx: the compiler knows that the branch is taken once. PTX ISA: elect.sync.
__device__ inline bool elect_one() {
#if defined(MINF_SIMT)
  return simt::elect_one();
#else
  uint32_t elected;
  asm volatile("{.reg .pred p;\n elect.sync _|p, 0xffffffff;\n selp.u32 %0, 1, 0, p;}"
               : "=r"(elected)
               :
               : "memory");
  return elected != 0;
#endif
}

}  // namespace minference::arch
