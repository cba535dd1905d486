// wgmma.h beside CUTLASS's: 16 values of N, two types, both majors of B, A in shared memory or
// registers.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <utility>

#define CUTE_SM90_EXTENDED_MMA_SHAPES_ENABLED
#include <cute/arch/mma_sm90_gmma.hpp>
#include <cute/arch/mma_sm90_gmma_ext.hpp>

#include "cuda/arch/wgmma.h"
#include "pairs.h"

using namespace minference;
namespace gmma = cute::SM90::GMMA;

/// The thread's accumulators, read from memory and written back.
template <int kRegisters>
struct Accumulators {
  float d[kRegisters];

  __device__ explicit Accumulators(const float* from) {
#pragma unroll
    for (int i = 0; i < kRegisters; ++i) d[i] = from[i];
  }
  __device__ void store(float* to) const {
#pragma unroll
    for (int i = 0; i < kRegisters; ++i) to[i] = d[i];
  }
};

template <typename Element, arch::Major kMajorB, int kN, typename A>
__device__ void our_product(float* sums, const A& a, uint64_t b, bool accumulate) {
  Accumulators<kN / 2> accumulators(sums);
  arch::wgmma_fence(accumulators.d);
  arch::wgmma<Element, kMajorB>(accumulators.d, a, arch::MatrixDescriptor{b}, accumulate);
  arch::wgmma_commit_group();
  arch::wgmma_wait<0>();
  arch::keep_registers(accumulators.d);
  accumulators.store(sums);
}

template <typename Operation, int kN, std::size_t... kRegister, typename... A>
__device__ void cutlass_product(float* sums, std::index_sequence<kRegister...>, uint64_t b,
                                bool accumulate, A... a) {
  Accumulators<kN / 2> accumulators(sums);
  cute::warpgroup_arrive();
  Operation::fma(a..., b, accumulators.d[kRegister]...,
                 accumulate ? gmma::ScaleOut::One : gmma::ScaleOut::Zero);
  cute::warpgroup_commit_batch();
  cute::warpgroup_wait<0>();
  (cute::warpgroup_fence_operand(accumulators.d[kRegister]), ...);
  accumulators.store(sums);
}

#define FORM(n, type, cutlass_type, major, cutlass_major)                                       \
  OURS(wgmma_shared_##n##_##type##_##major)                                                     \
  (float* sums, uint64_t a, uint64_t b, bool accumulate) {                                      \
    our_product<arch::type, arch::Major::major, n>(sums, arch::MatrixDescriptor{a}, b,          \
                                                   accumulate);                                 \
  }                                                                                             \
  CUTLASS(wgmma_shared_##n##_##type##_##major)                                                  \
  (float* sums, uint64_t a, uint64_t b, bool accumulate) {                                      \
    using Operation =                                                                           \
        gmma::MMA_64x##n##x16_F32##cutlass_type##cutlass_type##_SS<gmma::Major::K,              \
                                                                   gmma::Major::cutlass_major>; \
    cutlass_product<Operation, n>(sums, std::make_index_sequence<n / 2>{}, b, accumulate, a);   \
  }                                                                                             \
  OURS(wgmma_registers_##n##_##type##_##major)                                                  \
  (float* sums, uint4 a, uint64_t b, bool accumulate) {                                         \
    uint32_t words[1][4] = {{a.x, a.y, a.z, a.w}};                                              \
    arch::keep_registers(words);                                                                \
    our_product<arch::type, arch::Major::major, n>(sums, words[0], b, accumulate);              \
  }                                                                                             \
  CUTLASS(wgmma_registers_##n##_##type##_##major)                                               \
  (float* sums, uint4 a, uint64_t b, bool accumulate) {                                         \
    using Operation =                                                                           \
        gmma::MMA_64x##n##x16_F32##cutlass_type##cutlass_type##_RS<gmma::Major::K,              \
                                                                   gmma::Major::cutlass_major>; \
    cutlass_product<Operation, n>(sums, std::make_index_sequence<n / 2>{}, b, accumulate, a.x,  \
                                  a.y, a.z, a.w);                                               \
  }
#define FORMS(n)                   \
  FORM(n, BFloat16, BF16, kK, K)   \
  FORM(n, BFloat16, BF16, kMn, MN) \
  FORM(n, Float16, F16, kK, K)     \
  FORM(n, Float16, F16, kMn, MN)

FORMS(16)
FORMS(32)
FORMS(48)
FORMS(64)
FORMS(80)
FORMS(96)
FORMS(112)
FORMS(128)
FORMS(144)
FORMS(160)
FORMS(176)
FORMS(192)
FORMS(208)
FORMS(224)
FORMS(240)
FORMS(256)
