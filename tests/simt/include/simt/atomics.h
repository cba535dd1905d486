// CUDA's atomic functions. The race checker never reports two atomics as a race.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "simt/inline.h"

namespace simt {

enum class Atomic {
  kAdd,
  kSub,
  kExchange,
  kMin,
  kMax,
  kAnd,
  kOr,
  kXor,
  kIncrement,
  kDecrement,
  kCompareAndSwap
};

/// Applies the operation to the T at `pointer`; returns what was there. Defined for int, unsigned,
/// long long, unsigned long long, float and double (the last two: kAdd and kExchange).
template <typename T>
T atomic_update(Atomic operation, T* pointer, T operand, T compare);

}  // namespace simt

#define SIMT_ATOMIC(word, T, operation)                                            \
  SIMT_INLINE T word(T* pointer, T value) {                                        \
    return simt::atomic_update<T>(simt::Atomic::operation, pointer, value, value); \
  }
#define SIMT_ATOMIC_INTEGERS(word, operation) \
  SIMT_ATOMIC(word, int, operation)           \
  SIMT_ATOMIC(word, unsigned, operation)      \
  SIMT_ATOMIC(word, unsigned long long, operation)

SIMT_ATOMIC_INTEGERS(atomicAdd, kAdd)
SIMT_ATOMIC(atomicAdd, float, kAdd)
SIMT_ATOMIC(atomicAdd, double, kAdd)
SIMT_ATOMIC(atomicSub, int, kSub)
SIMT_ATOMIC(atomicSub, unsigned, kSub)
SIMT_ATOMIC_INTEGERS(atomicExch, kExchange)
SIMT_ATOMIC(atomicExch, float, kExchange)
SIMT_ATOMIC_INTEGERS(atomicMin, kMin)
SIMT_ATOMIC(atomicMin, long long, kMin)
SIMT_ATOMIC_INTEGERS(atomicMax, kMax)
SIMT_ATOMIC(atomicMax, long long, kMax)
SIMT_ATOMIC_INTEGERS(atomicAnd, kAnd)
SIMT_ATOMIC_INTEGERS(atomicOr, kOr)
SIMT_ATOMIC_INTEGERS(atomicXor, kXor)
SIMT_ATOMIC(atomicInc, unsigned, kIncrement)
SIMT_ATOMIC(atomicDec, unsigned, kDecrement)

#undef SIMT_ATOMIC_INTEGERS
#undef SIMT_ATOMIC

#define SIMT_ATOMIC_CAS(T)                                                                 \
  SIMT_INLINE T atomicCAS(T* pointer, T compare, T value) {                                \
    return simt::atomic_update<T>(simt::Atomic::kCompareAndSwap, pointer, value, compare); \
  }
SIMT_ATOMIC_CAS(int)
SIMT_ATOMIC_CAS(unsigned)
SIMT_ATOMIC_CAS(unsigned long long)
#undef SIMT_ATOMIC_CAS
