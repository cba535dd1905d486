// The state of a running launch: cluster, blocks, warps, groups of lanes.
//
// Lanes that disagree on a branch become groups with their own program counters. The group that is
// furthest behind runs; groups that meet at an instruction merge.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "async_copies.h"
#include "barriers.h"
#include "counts.h"
#include "decoder.h"
#include "launch.h"
#include "mbarriers.h"
#include "operation.h"
#include "options.h"
#include "products.h"
#include "proxies.h"

namespace ptxsim {

struct Block;
struct Cluster;

struct Group {
  enum class State : u8 {
    kReady,
    kMeeting,  // Waits for other lanes of the warp.
    kBlocked,  // At a barrier, which will release it.
  };
  u32 pc = 0;
  u32 lanes = 0;
  State state = State::kReady;
  bool yielded = false;  // In this turn; at `idle`, a poll that failed or a sleep.
  u32 idle = 0;
};

struct Warp {
  Block* block = nullptr;
  Cluster* cluster = nullptr;
  const Kernel* kernel = nullptr;
  u32 id = 0;     // In the block.
  u32 alive = 0;  // Lanes that have not exited.
  std::vector<Group> groups;
  std::size_t current = 0;  // The group that runs.
  const Op* op = nullptr;   // The instruction that runs.
  bool poll_failed = false;
  bool takes_turns = false;  // The group that ran last lets others run first (progress.h).

  u8* registers = nullptr;   // The register file.
  std::vector<u32> defined;  // By register number, if checked: the lanes that hold a value.
  u8* local = nullptr;       // Lane 0's; the others' follow.
  u64 local_bytes = 0;       // Per lane.
  u32 num_registers = 0;     // Per thread, changed by setmaxnreg. 0: not known.

  // barrier.cluster: lanes that arrived in the current phase; lanes that arrived in a finished
  // phase but have not waited yet.
  u32 cluster_arrived = 0, cluster_passed = 0;

  ThreadCopies copies;     // cp.async.
  BulkGroups bulk_groups;  // For bulk stores.
  Fences fences;           // fence.proxy.async, per lane.
  Products products;       // wgmma.

  /// A register's value in each lane.
  template <class T>
  T* lanes(Reg reg) {
    return reinterpret_cast<T*>(registers + reg.offset);
  }
  template <class T>
  const T* lanes(Reg reg) const {
    return reinterpret_cast<const T*>(registers + reg.offset);
  }
  /// A predicate: one bit per lane.
  u32& predicate(Reg reg) { return *reinterpret_cast<u32*>(registers + reg.offset); }
  u32 predicate(Reg reg) const { return *reinterpret_cast<const u32*>(registers + reg.offset); }
};

/// A cooperative thread array.
struct Block {
  Cluster* cluster = nullptr;
  u32 index[3] = {};
  u32 rank = 0;  // In the cluster.
  std::vector<Warp> warps;
  BlockBarriers barriers;
  RegisterPool register_pool;
  Mbarriers mbarriers;      // The record of each.
  SharedAccesses accesses;  // By proxy.
  u8* shared = nullptr;     // Offset 0; what kernels may use starts at kSharedBase.
  u64 shared_bytes = 0;     // End of what kernels may use.
};

/// What runs at a time: the blocks of a cluster, often only one.
struct Cluster {
  const Launch* launch = nullptr;
  u32 index[3] = {};
  std::vector<Block> blocks;
  PendingCopies pending;
  ClusterBarrier barrier;
  Counts* counts = nullptr;
  u64 events = 0;  // Increases with anything that may let another warp go on.
  u64 clock = 0;
  std::mt19937_64 random;
};

/// The first bytes of shared memory are reserved for the system.
constexpr u64 kSharedBase = 1024;
/// Addresses of shared::cluster hold the block's rank plus one above the offset.
constexpr u32 kRankShift = 24;

/// Throws an Error that says what failed, at which instruction, in which block and warp, and in
/// which `lanes`, if given.
[[noreturn]] void fail(const Warp& warp, const std::string& what, u32 lanes = 0);

// ---- Operands (decoder.h) -----------------------------------------------------------------------

inline u64 Address::of(const Warp& warp, u32 lane) const {
  if (base.bytes == 8) return warp.lanes<u64>(base)[lane] + static_cast<u64>(offset);
  return warp.lanes<u32>(base)[lane] + static_cast<u32>(offset);
}

inline u32 Predicate::of(const Warp& warp) const {
  const u32 value = warp.predicate(reg);
  return negated ? ~value : value;
}

}  // namespace ptxsim
