// SPDX-License-Identifier: Apache-2.0
#include "multiply.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "half.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// How vectors are passed depends on the instruction set, but all functions that take one are local.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace ptxsim {
namespace {

// GCC's and clang's vectors: an instruction set without vectors of this width uses several.
using Floats = float __attribute__((vector_size(32)));
using Words = u32 __attribute__((vector_size(32)));
using Halves = u16 __attribute__((vector_size(16)));

constexpr u32 kCanonicalNan = 0x7fffffff;

namespace portable {
#define PTXSIM_TARGET

inline Floats multiply_add(const Floats& a, const Floats& b, const Floats& c) {
  Floats result;
  for (int i = 0; i < 8; ++i) result[i] = std::fma(a[i], b[i], c[i]);
  return result;
}
inline Floats convert_f16(const u8* from) {
  u16 bits[8];
  std::memcpy(bits, from, sizeof bits);
  Floats values;
  for (int i = 0; i < 8; ++i) values[i] = f16_to_float(bits[i]);
  return values;
}

#include "multiply_loops.h"
#undef PTXSIM_TARGET
}  // namespace portable

#if defined(__x86_64__)
// Not AVX-512: it is no faster here, where B's elements are loaded for each product (both 42
// GFLOP/s on a Zen 5).
namespace avx2 {
#define PTXSIM_TARGET __attribute__((target("avx2,fma,f16c")))

PTXSIM_TARGET inline Floats multiply_add(Floats a, Floats b, Floats c) {
  return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
PTXSIM_TARGET inline Floats convert_f16(const u8* from) {
  return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

#include "multiply_loops.h"
#undef PTXSIM_TARGET
}  // namespace avx2
#endif

std::vector<MultiplyKernels> available_kernels() {
  std::vector<MultiplyKernels> kernels;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c")) {
    kernels.push_back({"avx2", avx2::convert, avx2::transpose, avx2::multiply});
  }
#endif
  kernels.push_back({"portable", portable::convert, portable::transpose, portable::multiply});
  return kernels;
}

}  // namespace

std::span<const MultiplyKernels> multiply_kernels() {
  static const std::vector<MultiplyKernels> kernels = available_kernels();
  return kernels;
}

}  // namespace ptxsim
