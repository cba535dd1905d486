// What kernels with producer and consumer warps need: one thread of a warp, elected by the
// hardware, to issue bulk copies (sm_90); and registers that one warpgroup gives to another
// (sm_90a).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/emulation.h"

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

/// Registers per thread that setmaxnreg takes.
template <int kRegisters>
inline constexpr bool kIsRegisterCount =
    kRegisters >= 24 && kRegisters <= 256 && kRegisters % 8 == 0;

/// Gives registers back, down to kRegisters per thread. All threads of the warpgroup call it; they
/// hold at least as many. The kernel must be compiled for a fixed number (__launch_bounds__).
/// PTX ISA: setmaxnreg.dec.sync.aligned.
template <int kRegisters>
__device__ inline void setmaxnreg_dec() {
  static_assert(kIsRegisterCount<kRegisters>);
#if defined(MINF_SIMT)
  simt::setmaxnreg(kRegisters, /*increase=*/false);
#else
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(kRegisters));
#endif
}

/// Takes registers, up to kRegisters per thread; waits until other warpgroups have given back
/// enough of the block's. All threads of the warpgroup call it; they hold at most as many.
/// PTX ISA: setmaxnreg.inc.sync.aligned.
template <int kRegisters>
__device__ inline void setmaxnreg_inc() {
  static_assert(kIsRegisterCount<kRegisters>);
#if defined(MINF_SIMT)
  simt::setmaxnreg(kRegisters, /*increase=*/true);
#else
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(kRegisters));
#endif
}

}  // namespace minference::arch
