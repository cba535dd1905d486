// What a run may choose. Read once from the environment (README.md), changed by tests.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "ptxsim/landing.h"
#include "types.h"

namespace ptxsim {

struct Options {
  Landing landing = Landing::kAtOnce;
  u64 seed = 1;  // Of kRandom, which also changes the order of warps.
  /// Registers that were never written, proxy fences, wgmma's operands and registers. What costs
  /// next to nothing is always checked: README.md.
  bool check = true;
  bool count = false;  // Counts (counts.h).
  /// wgmma.fence and wgmma.wait_group make the four warps meet. Hardware does so, the manual does
  /// not promise it, and some code relies on it.
  bool warpgroups_meet = false;
  u32 num_threads = 1;  // Of the host; a block each.
  u32 num_multiprocessors = 132;
};

Options& options();

}  // namespace ptxsim
