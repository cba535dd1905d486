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
struct Op;

/// One cp.async of a lane.
struct ThreadCopy {
  const u8* from = nullptr;
  u8* to = nullptr;
  u32 bytes = 0;  // Read; `zeros` follow them.
  u32 zeros = 0;
  u32 group = 0;
  u64 number = 0;       // Among the lane's.
  bool landed = false;  // But the lane does not know yet.
};
struct ThreadCopies {
  std::vector<ThreadCopy> pending[kWarpSize];
  u32 open_group[kWarpSize] = {};
  u64 issued[kWarpSize] = {};
};

void issue_thread_copy(Warp& warp, u32 lane, ThreadCopy copy);
/// cp.async.wait_group: all groups but the last `num_left`.
void wait_thread_groups(Warp& warp, u32 lane, u32 num_left);
/// The lane's copies before number `end`.
void wait_thread_copies(Warp& warp, u32 lane, u64 end);

/// Bulk stores' groups (cp.async.bulk.commit_group), by lane.
struct BulkGroups {
  u32 open[kWarpSize] = {};
};

/// A bulk copy that was issued, or the arrival behind cp.async.
struct PendingCopy {
  std::function<void()> read;  // A store's: takes its bytes from shared memory.
  std::function<void()> land;  // Moves the bytes, and tells who waits.
  Warp* warp = nullptr;
  u32 lane = 0;
  bool is_load = true;  // Its mbarrier says when it is done; a store's group does.
  u32 group = 0;
  const Op* op = nullptr;  // What issued it.
  bool was_read = false, has_landed = false;
  bool source_is_free = false;  // The issuer knows that it was read.
};
using PendingCopies = std::deque<PendingCopy>;

void issue_bulk_copy(Warp& warp, PendingCopy copy);
/// cp.async.bulk.wait_group{.read}
void wait_bulk_groups(Warp& warp, u32 lane, u32 num_left, bool only_read);

/// Lets one copy land that its issuer does not wait for by group: the oldest, or one at random.
/// @return whether there was one.
bool land_one(Cluster& cluster, bool at_random);
/// Everything that is left, at a block's end.
void land_all(Cluster& cluster);
/// Before lanes exit, where Options::check is set: fails if a bulk store of theirs may still read
/// shared memory.
void check_exit_copies(Warp& warp, u32 lanes);

}  // namespace ptxsim
