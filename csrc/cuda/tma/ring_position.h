// Position of a thread in a ring of stages that one part of a block fills and others read.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/emulation.h"

namespace minference::tma {

/// Position in a ring of kStages stages.
template <int kStages>
struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;  // Parity of the round, and so of the phases in which its stages are filled.

  __device__ void advance() {
    if (++stage < kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

}  // namespace minference::tma
