// Kernels for AVX2 with FMA and F16C. Built with that instruction set's flags (cmake/).
// SPDX-License-Identifier: Apache-2.0
#include "cpu/isa/simd_avx2.h"
// The vectors must be defined first.
#include "cpu/isa/kernels_inl.h"

namespace minference::cpu {

const IsaKernels& avx2_kernels() {
  static constexpr IsaKernels kIsa = isa_kernels("avx2");
  return kIsa;
}

}  // namespace minference::cpu
