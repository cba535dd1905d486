// Loops over a warp's lanes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>

#include "types.h"

namespace ptxsim {

/// Calls `f` with the number of each lane of the mask. A full mask has its own loop, which
/// vectorises.
template <class F>
[[gnu::always_inline]] inline void each_lane(u32 lanes, F f) {
  if (lanes == kAllLanes) {
    for (u32 lane = 0; lane < kWarpSize; ++lane) f(lane);
  } else {
    for (; lanes != 0; lanes &= lanes - 1) f(static_cast<u32>(std::countr_zero(lanes)));
  }
}

inline u32 first_lane(u32 lanes) { return static_cast<u32>(std::countr_zero(lanes)); }

/// Sets the bits of `lanes` in a predicate to those of `values`.
inline void set_bits(u32& predicate, u32 lanes, u32 values) {
  predicate = (predicate & ~lanes) | (values & lanes);
}

}  // namespace ptxsim
