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
  u32 bytes = 0;  // Bytes to read; `zeros` follow them.
  u32 zeros = 0;
  u32 group = 0;
  u64 number = 0;       // Counted per lane.
  bool landed = false;  // The lane does not know it yet.
};
struct ThreadCopies {
  std::vector<ThreadCopy> pending[kWarpSize];
  u32 open_group[kWarpSize] = {};
  u64 issued[kWarpSize] = {};
};

void issue_thread_copy(Warp& warp, u32 lane, ThreadCopy copy);
/// cp.async.wait_group: waits for all groups but the last `num_left`.
void wait_thread_groups(Warp& warp, u32 lane, u32 num_left);
/// Waits for the lane's copies before number `end`.
void wait_thread_copies(Warp& warp, u32 lane, u64 end);

/// Bulk stores' groups (cp.async.bulk.commit_group), by lane.
struct BulkGroups {
  u32 open[kWarpSize] = {};
};

/// A bulk copy that was issued, or the arrival behind cp.async.
struct PendingCopy {
  std::function<void()> read;  // For stores: reads the bytes from shared memory.
  std::function<void()> land;  // Moves the bytes, and notifies who waits.
  Warp* warp = nullptr;
  u32 lane = 0;
  bool is_load = true;  // Loads complete through their mbarrier, stores through their group.
  u32 group = 0;
  const Op* op = nullptr;  // What issued it.
  bool was_read = false, has_landed = false;
  bool source_is_free = false;  // The issuer knows that the source was read.
};
using PendingCopies = std::deque<PendingCopy>;

void issue_bulk_copy(Warp& warp, PendingCopy copy);
/// cp.async.bulk.wait_group{.read}
void wait_bulk_groups(Warp& warp, u32 lane, u32 num_left, bool only_read);

/// Lands one copy that its issuer does not wait for by group: the oldest, or a random one. @return
/// whether there was one.
bool land_one(Cluster& cluster, bool at_random);
/// Lands everything that is left when a block ends.
void land_all(Cluster& cluster);
/// Called before lanes exit, if Options::check is set: fails if one of their bulk stores may still
/// read shared memory.
void check_exit_copies(Warp& warp, u32 lanes);

}  // namespace ptxsim
