// What kernels of warpgroups that fill and read rings of shared memory have in common.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/emulation.h"

namespace minference::sm90 {

inline constexpr int kWarpgroupThreads = 128;

/// Where a thread is in a ring of kStages buffers.
template <int kStages>
struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;  // Of the round: of the phases in which its buffers are filled.

  __device__ void advance() {
    if (++stage < kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

}  // namespace minference::sm90
