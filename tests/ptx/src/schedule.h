// A warp's turn.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "state.h"

namespace ptxsim {

/// Why a turn has ended.
enum class TurnEnd : u8 {
  kExited,   // All lanes have exited.
  kBlocked,  // No group can go on before other warps do.
  kIdle,     // The same, but some poll or sleep.
  kQuantum,  // It has used up its instructions.
};

/// Runs the warp for at most `quantum` instructions.
TurnEnd run_warp(Warp& warp, u64 quantum);

}  // namespace ptxsim
