// Kernels for AVX-512 with BF16 dot products. Built with that instruction set's flags (cmake/).
// SPDX-License-Identifier: Apache-2.0
#include "cpu/isa/simd_avx512.h"
// The vectors must be defined first.
#include "cpu/isa/kernels_inl.h"

namespace minference::cpu {

const IsaKernels& avx512_bf16_kernels() {
  static constexpr IsaKernels kIsa = isa_kernels("avx512_bf16");
  return kIsa;
}

}  // namespace minference::cpu
