// Where threads of a block or cluster meet: named barriers, the cluster's barrier; and the
// registers that the warps of a block hand each other (setmaxnreg).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "types.h"

namespace ptxsim {

struct Warp;

/// A group of lanes that waits: its warp, and the instruction that it waits at.
struct Waiting {
  Warp* warp = nullptr;
  u32 pc = 0;
};

struct Barrier {
  u32 expected = 0;  // 0: all threads of the block.
  u32 arrived = 0;
  bool any = false, all = true;  // Of the votes.
  u32 count = 0;
  std::vector<Waiting> waiting;
};

struct BlockBarriers {
  static constexpr u32 kCount = 16;
  Barrier named[kCount];
  std::vector<Barrier> warpgroups;  // Options::warpgroups_meet.
};

struct ClusterBarrier {
  u32 arrived = 0;
  u64 phase = 0;
  std::vector<Waiting> waiting;
};

/// Registers that nobody holds.
struct RegisterPool {
  u32 free = 0;
  std::vector<Waiting> waiting;
};

}  // namespace ptxsim
