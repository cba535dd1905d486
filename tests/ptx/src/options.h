// The options of a run. Read once from the environment (README.md), and changed by tests.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "ptxsim/landing.h"
#include "types.h"

namespace ptxsim {

struct Options {
  Landing landing = Landing::kAtOnce;
  u64 seed = 1;  // For kRandom; it also changes the order of warps.
  /// Checks undefined registers, proxy fences, and wgmma's operands and registers. What costs next
  /// to nothing is always checked: README.md.
  bool check = true;
  bool count = false;  // Counts (counts.h).
  /// Makes the four warps meet at wgmma.fence and wgmma.wait_group. Hardware does so. The manual
  /// does not promise it, but some code relies on it.
  bool warpgroups_meet = false;
  u32 num_threads = 1;  // Host threads; each runs a block.
  u32 num_multiprocessors = 132;
};

Options& options();

}  // namespace ptxsim
