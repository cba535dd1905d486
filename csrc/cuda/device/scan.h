// Exclusive prefix sums, maxima and minima over the threads of a group (or a warp), in thread
// order.
//
// Use: `exclusive_scan<Group, Sum<int32_t>>(storage.scan, value)` by all threads of the group, with
// a ScanStorage in shared memory, which is free again on return. What the group wrote to shared
// memory before the call is visible to all of it after. The total is the reduction over the whole
// group. A warp by itself calls warp_exclusive_scan, without storage, and orders no memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>

#include "cuda/device/thread_group.h"

namespace minference::device {

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
  T exclusive;  // Of the threads before this one.
  T total;      // Of all threads.
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
  Group::sync();  // All totals are there.
  // Every warp scans the totals itself: cheaper than a second round of barriers.
  const auto warps = warp_exclusive_scan<Operation>(lane < Group::kWarps ? storage.warp_totals[lane]
                                                                         : Operation::identity());
  Group::sync();  // They are read: the storage may be written again.
  const auto warps_before = __shfl_sync(kFullWarp, warps.exclusive, Group::warp());
  scan.exclusive = Operation::combine(warps_before, scan.exclusive);
  scan.total = warps.total;
  return scan;
}

}  // namespace minference::device
