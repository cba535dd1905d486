// Kernels for any processor. Built with the compiler's baseline flags.
// SPDX-License-Identifier: Apache-2.0
#include "cpu/isa/simd_portable.h"
// The vectors must be defined first.
#include "cpu/isa/kernels_inl.h"

namespace minference::cpu {

const IsaKernels& portable_kernels() {
  static constexpr IsaKernels kIsa = isa_kernels("portable");
  return kIsa;
}

}  // namespace minference::cpu
