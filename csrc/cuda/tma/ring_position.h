// Where a thread is in a ring of buffers that one part of a block fills and others read.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/emulation.h"

namespace minference::tma {

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

}  // namespace minference::tma
