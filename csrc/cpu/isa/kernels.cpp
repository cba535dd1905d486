// The kernels of one instruction set. Compiled once for each of them, with the compiler flags, the
// name (MINF_ISA) and the vectors (MINF_ISA_VECTORS) that cmake/MinferenceTarget.cmake gives it.
// SPDX-License-Identifier: Apache-2.0
#include MINF_ISA_VECTORS
// The vectors must be defined first.
#include "cpu/isa/kernels_inl.h"

#define MINF_ISA_FUNCTION_(isa) isa##_kernels
#define MINF_ISA_FUNCTION(isa) MINF_ISA_FUNCTION_(isa)
#define MINF_ISA_NAME_(isa) #isa
#define MINF_ISA_NAME(isa) MINF_ISA_NAME_(isa)

namespace minference::cpu {

const IsaKernels& MINF_ISA_FUNCTION(MINF_ISA)() {
  static constexpr IsaKernels kIsa = isa_kernels(MINF_ISA_NAME(MINF_ISA));
  return kIsa;
}

}  // namespace minference::cpu
