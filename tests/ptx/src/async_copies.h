// Copies that complete later: cp.async of threads, and bulk copies.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <functional>
#include <vector>

#include "types.h"

namespace ptxsim {

struct Warp;
struct Cluster;

/// One cp.async of a lane.
struct ThreadCopy {
  const u8* from = nullptr;
  u8* to = nullptr;
  u32 bytes = 0;  // Read; `zeros` follow them.
  u32 zeros = 0;
  u32 group = 0;
};
struct ThreadCopies {
  std::vector<ThreadCopy> pending[kWarpSize];
  u32 open_group[kWarpSize] = {};
};

/// Bulk stores' groups (cp.async.bulk.commit_group), by lane.
struct BulkGroups {
  u32 open[kWarpSize] = {};
};

/// A bulk copy that was issued.
struct PendingCopy {
  std::function<void()> land;  // Moves the bytes, and tells who waits.
  Warp* warp = nullptr;
  u32 lane = 0;
  bool is_load = true;  // Its mbarrier says when it is done; a store's group does.
  u32 group = 0;
};
using PendingCopies = std::deque<PendingCopy>;

/// Lets one copy land that its issuer does not wait for by group: the oldest, or one at random.
/// @return whether there was one.
bool land_one(Cluster& cluster, bool at_random);
/// Everything that is left, at a block's end.
void land_all(Cluster& cluster);

}  // namespace ptxsim
