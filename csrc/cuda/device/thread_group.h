// The threads that work together, as a type: building blocks take it as a template parameter, and
// so know how many there are. All threads of a group must call together. Then prefix sums, maxima
// and minima over the threads of a group or of a warp.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>

#include "cuda/arch/emulation.h"

namespace minference::device {

inline constexpr int kWarpThreads = 32;
inline constexpr int kWarpgroupThreads = 128;
inline constexpr unsigned kFullWarp = 0xffffffffu;

__device__ inline int lane_index() { return static_cast<int>(threadIdx.x) % kWarpThreads; }
/// Bits of the warp's lanes before this one.
__device__ inline uint32_t lanes_below() { return (1u << lane_index()) - 1; }

/// Returns `condition`, which is the same in all lanes of the warp, in a form that shows this to
/// the compiler. Behind a branch that it takes for divergent, the compiler calls a function to
/// gather the warp before every ldmatrix and mma, and spills registers around the calls.
__device__ inline bool warp_uniform(bool condition) {
  return __any_sync(kFullWarp, condition) != 0;
}

/// All kThreads_ threads of a one-dimensional block.
template <int kThreads_>
struct BlockGroup {
  static_assert(kThreads_ % kWarpThreads == 0);
  static constexpr int kThreads = kThreads_;
  static constexpr int kWarps = kThreads / kWarpThreads;

  __device__ static int thread() { return static_cast<int>(threadIdx.x); }
  __device__ static int warp() { return thread() / kWarpThreads; }
  /// Orders the group's memory accesses.
  __device__ static void sync() { __syncthreads(); }
};

// ---- Scans --------------------------------------------------------------------------------------
//
// Exclusive, in thread order: `exclusive_scan<Group, Sum<int32_t>>(storage.scan, value)` by all
// threads of the group, with a ScanStorage in shared memory, which is free again on return. What
// the group wrote to shared memory before the call is visible to all of it after the call. The
// total is the reduction over the whole group. A single warp calls warp_exclusive_scan, which needs
// no storage and orders no memory.

template <typename T>
struct Sum {
  using Type = T;
  __device__ static T identity() { return 0; }
  __device__ static T combine(T a, T b) { return a + b; }
};

template <typename T>
struct Max {
  using Type = T;
  static constexpr T kLowest = std::numeric_limits<T>::lowest();
  __device__ static T identity() { return kLowest; }
  __device__ static T combine(T a, T b) { return a > b ? a : b; }
};

template <typename T>
struct Min {
  using Type = T;
  static constexpr T kHighest = std::numeric_limits<T>::max();
  __device__ static T identity() { return kHighest; }
  __device__ static T combine(T a, T b) { return a < b ? a : b; }
};

template <typename T>
struct ScanResult {
  T exclusive;  // The reduction over the threads before this one.
  T total;      // The reduction over all threads.
};

template <typename Group, typename Operation>
struct ScanStorage {
  typename Operation::Type warp_totals[Group::kWarps];
};

template <typename Operation>
__device__ inline typename Operation::Type warp_inclusive_scan(typename Operation::Type value) {
  const int lane = lane_index();
#pragma unroll
  for (int distance = 1; distance < kWarpThreads; distance *= 2) {
    const auto before = __shfl_up_sync(kFullWarp, value, distance);
    if (lane >= distance) value = Operation::combine(before, value);
  }
  return value;
}

template <typename Operation>
__device__ inline ScanResult<typename Operation::Type> warp_exclusive_scan(
    typename Operation::Type value) {
  const auto inclusive = warp_inclusive_scan<Operation>(value);
  const auto before = __shfl_up_sync(kFullWarp, inclusive, 1);
  return {lane_index() == 0 ? Operation::identity() : before,
          __shfl_sync(kFullWarp, inclusive, kWarpThreads - 1)};
}

template <typename Group, typename Operation>
__device__ inline ScanResult<typename Operation::Type> exclusive_scan(
    ScanStorage<Group, Operation>& storage, typename Operation::Type value) {
  static_assert(Group::kWarps <= kWarpThreads);
  const int lane = lane_index();
  auto scan = warp_exclusive_scan<Operation>(value);
  if (lane == 0) storage.warp_totals[Group::warp()] = scan.total;
  Group::sync();  // All totals are written.
  // Every warp scans the totals itself: cheaper than a second round of barriers.
  const auto warps = warp_exclusive_scan<Operation>(lane < Group::kWarps ? storage.warp_totals[lane]
                                                                         : Operation::identity());
  Group::sync();  // All have read them: the storage may be written again.
  const auto warps_before = __shfl_sync(kFullWarp, warps.exclusive, Group::warp());
  scan.exclusive = Operation::combine(warps_before, scan.exclusive);
  scan.total = warps.total;
  return scan;
}

}  // namespace minference::device
