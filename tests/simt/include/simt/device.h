// The built-ins of CUDA C++, for kernel sources that a host compiler compiles for emulated threads.
// The one include that kernels need; instructions behind PTX are in instructions.h, launches in
// launch.h.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "simt/atomics.h"
#include "simt/inline.h"
#include "simt/instructions.h"
#include "simt/intrinsics.h"
#include "simt/launch.h"
#include "simt/qualifiers.h"

namespace simt {

enum class BarrierVote { kNone, kCount, kAnd, kOr };
int block_barrier(BarrierVote vote, bool predicate);

enum class WarpVote { kBallot, kAny, kAll, kMatchAny };
uint32_t warp_vote(WarpVote vote, uint32_t mask, uint64_t value);

enum class Shuffle { kIndex, kUp, kDown, kXor };
uint64_t warp_shuffle(Shuffle kind, uint32_t mask, uint64_t value, int operand, int width);

enum class WarpReduction { kAdd, kAddSigned, kMin, kMax, kMinSigned, kMaxSigned, kAnd, kOr, kXor };
uint32_t warp_reduce(WarpReduction operation, uint32_t mask, uint32_t value);

void warp_barrier(uint32_t mask);
uint32_t active_mask();
void memory_fence();
void pause();  // Lets other threads run; for loops that wait for memory to change.
int64_t clock_ticks();
[[noreturn]] void trap();

template <typename T>
SIMT_INLINE T shuffle(Shuffle kind, uint32_t mask, T value, int operand, int width) {
  static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  bits = warp_shuffle(kind, mask, bits, operand, width);
  __builtin_memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace simt

// Those of the running thread; zeros outside kernels. They do not change while a thread runs, so
// they are const: compilers do not instrument accesses to constants.
extern const uint3 threadIdx;
extern const uint3 blockIdx;
extern const dim3 blockDim;
extern const dim3 gridDim;
inline constexpr int warpSize = 32;

SIMT_INLINE void __syncthreads() { simt::block_barrier(simt::BarrierVote::kNone, false); }
SIMT_INLINE int __syncthreads_count(int predicate) {
  return simt::block_barrier(simt::BarrierVote::kCount, predicate != 0);
}
SIMT_INLINE int __syncthreads_and(int predicate) {
  return simt::block_barrier(simt::BarrierVote::kAnd, predicate != 0);
}
SIMT_INLINE int __syncthreads_or(int predicate) {
  return simt::block_barrier(simt::BarrierVote::kOr, predicate != 0);
}
SIMT_INLINE void __syncwarp(unsigned mask = 0xffffffffu) { simt::warp_barrier(mask); }

template <typename T>
SIMT_INLINE T __shfl_sync(unsigned mask, T value, int source_lane, int width = 32) {
  return simt::shuffle(simt::Shuffle::kIndex, mask, value, source_lane, width);
}
template <typename T>
SIMT_INLINE T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  return simt::shuffle(simt::Shuffle::kUp, mask, value, static_cast<int>(delta), width);
}
template <typename T>
SIMT_INLINE T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  return simt::shuffle(simt::Shuffle::kDown, mask, value, static_cast<int>(delta), width);
}
template <typename T>
SIMT_INLINE T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32) {
  return simt::shuffle(simt::Shuffle::kXor, mask, value, lane_mask, width);
}

SIMT_INLINE unsigned __ballot_sync(unsigned mask, int predicate) {
  return simt::warp_vote(simt::WarpVote::kBallot, mask, predicate != 0);
}
SIMT_INLINE int __any_sync(unsigned mask, int predicate) {
  return static_cast<int>(simt::warp_vote(simt::WarpVote::kAny, mask, predicate != 0));
}
SIMT_INLINE int __all_sync(unsigned mask, int predicate) {
  return static_cast<int>(simt::warp_vote(simt::WarpVote::kAll, mask, predicate != 0));
}
template <typename T>
SIMT_INLINE unsigned __match_any_sync(unsigned mask, T value) {
  static_assert(sizeof(T) <= 8, "a match compares at most 8 bytes");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  return simt::warp_vote(simt::WarpVote::kMatchAny, mask, bits);
}
/// CUDA only promises lanes that run together now, so naming the calling lane alone is allowed.
SIMT_INLINE unsigned __activemask() { return simt::active_mask(); }

#define SIMT_REDUCTION(word, unsigned_operation, signed_operation)                         \
  SIMT_INLINE unsigned word(unsigned mask, unsigned value) {                               \
    return simt::warp_reduce(simt::WarpReduction::unsigned_operation, mask, value);        \
  }                                                                                        \
  SIMT_INLINE int word(unsigned mask, int value) {                                         \
    return static_cast<int>(simt::warp_reduce(simt::WarpReduction::signed_operation, mask, \
                                              static_cast<uint32_t>(value)));              \
  }
SIMT_REDUCTION(__reduce_add_sync, kAdd, kAddSigned)
SIMT_REDUCTION(__reduce_min_sync, kMin, kMinSigned)
SIMT_REDUCTION(__reduce_max_sync, kMax, kMaxSigned)
#undef SIMT_REDUCTION
SIMT_INLINE unsigned __reduce_and_sync(unsigned mask, unsigned value) {
  return simt::warp_reduce(simt::WarpReduction::kAnd, mask, value);
}
SIMT_INLINE unsigned __reduce_or_sync(unsigned mask, unsigned value) {
  return simt::warp_reduce(simt::WarpReduction::kOr, mask, value);
}
SIMT_INLINE unsigned __reduce_xor_sync(unsigned mask, unsigned value) {
  return simt::warp_reduce(simt::WarpReduction::kXor, mask, value);
}

SIMT_INLINE void __threadfence() { simt::memory_fence(); }
SIMT_INLINE void __threadfence_block() { simt::memory_fence(); }
SIMT_INLINE void __threadfence_system() { simt::memory_fence(); }
SIMT_INLINE void __nanosleep(unsigned) { simt::pause(); }
SIMT_INLINE long long clock64() { return simt::clock_ticks(); }
[[noreturn]] SIMT_INLINE void __trap() { simt::trap(); }
template <typename T>
SIMT_INLINE T __ldg(const T* pointer) {
  return *pointer;
}
