// A warp's turn.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "state.h"

namespace ptxsim {

/// Why a turn is over.
enum class TurnEnd : u8 {
  kExited,   // All lanes did.
  kBlocked,  // No group can go on before others do.
  kIdle,     // The same, but some poll or sleep.
  kQuantum,  // Its instructions are used up.
};

/// Runs the warp for at most `quantum` instructions.
TurnEnd run_warp(Warp& warp, u64 quantum);

}  // namespace ptxsim
