// The threads that work together, as a type: building blocks take it as a template parameter, and
// so know how many there are. All threads of a group must call together.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/emulation.h"

namespace minference::device {

inline constexpr int kWarpThreads = 32;
inline constexpr int kWarpgroupThreads = 128;
inline constexpr unsigned kFullWarp = 0xffffffffu;

__device__ inline int lane_index() { return static_cast<int>(threadIdx.x) % kWarpThreads; }
/// Bits of the warp's lanes before this one.
__device__ inline uint32_t lanes_below() { return (1u << lane_index()) - 1; }

/// `condition`, which is the same in all lanes of the warp, in a form that shows this to the
/// compiler: behind a branch that it takes for divergent it calls a function to gather the warp
/// before every ldmatrix and mma, and spills for the sake of the calls.
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

}  // namespace minference::device
