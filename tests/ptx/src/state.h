// A launch under way: cluster, blocks, warps, groups of lanes.
//
// Lanes that disagree on a branch become groups with program counters of their own. The group that
// is furthest behind runs; groups that meet at an instruction are one again.
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
    kMeeting,  // For other lanes of the warp.
    kBlocked,  // At a barrier, which lets it go on.
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
  const Op* op = nullptr;   // What runs.
  bool poll_failed = false;
  bool takes_turns = false;  // The group that ran last lets the others run first (progress.h).

  u8* registers = nullptr;   // The register file.
  std::vector<u32> defined;  // By register number, if checked: lanes that hold a value.
  u8* local = nullptr;       // Of lane 0; the others' follow.
  u64 local_bytes = 0;       // Of a lane.
  u32 num_registers = 0;     // Per thread: what setmaxnreg changes. 0: not known.

  // barrier.cluster: lanes that arrived in the phase under way; in one that is over, and did not
  // wait yet.
  u32 cluster_arrived = 0, cluster_passed = 0;

  ThreadCopies copies;     // cp.async.
  BulkGroups bulk_groups;  // Of bulk stores.
  Fences fences;           // fence.proxy.async, by lane.
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
  /// A predicate: a bit per lane.
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
  Mbarriers mbarriers;      // What is known of each.
  SharedAccesses accesses;  // By proxy.
  u8* shared = nullptr;     // Offset 0; what kernels may use begins at kSharedBase.
  u64 shared_bytes = 0;     // The end of what they may use.
};

/// What runs at a time: the blocks of a cluster, mostly one.
struct Cluster {
  const Launch* launch = nullptr;
  u32 index[3] = {};
  std::vector<Block> blocks;
  PendingCopies pending;
  ClusterBarrier barrier;
  Counts* counts = nullptr;
  u64 events = 0;  // Grows with anything that may let another warp go on.
  u64 clock = 0;
  std::mt19937_64 random;
};

/// The first bytes of shared memory are the system's.
constexpr u64 kSharedBase = 1024;
/// Addresses of shared::cluster: the block's rank plus one stands above the offset.
constexpr u32 kRankShift = 24;

/// Throws an Error: what, at which instruction, in which block and warp; `lanes` if they matter.
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
