// Where threads of a block or cluster meet: named barriers (section 9.7.13.1) and the cluster's
// barrier (9.7.13.3). Also the registers that the warps of a block pass to each other (setmaxnreg,
// 9.7.19.5).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "types.h"

namespace ptxsim {

struct Block;
struct Cluster;
struct Warp;

/// A blocked group of lanes.
struct Waiting {
  Warp* warp = nullptr;
  u32 lanes = 0;
};

/// The lanes of a warp that arrived at a barrier.
struct Arrival {
  Warp* warp = nullptr;
  u32 lanes = 0;
  bool waits = true;
  bool whole_warp = true;  // .aligned: counts as 32 threads, however many are alive.
};

struct Barrier {
  u32 expected = 0;  // Number of threads; 0: all live threads of the block.
  bool any = false, all = true;
  u32 votes = 0;
  std::vector<Arrival> arrivals;
};

struct BlockBarriers {
  static constexpr u32 kCount = 16;
  Barrier named[kCount];
  std::vector<Barrier> warpgroups;  // For Options::warpgroups_meet.
};

/// Which warps arrived, and in which phase, is in Warp::cluster_arrived and cluster_passed.
struct ClusterBarrier {
  std::vector<Waiting> waiting;
};

/// Registers that are not assigned to any warp.
struct RegisterPool {
  u32 free = 0;
  std::vector<Waiting> waiting;
};

// All lanes of the warp's current group, `lanes`, execute Warp::op. Afterwards the group is past
// it, or is blocked there until another group opens the barrier. Lanes that name another barrier
// become a group that has yet to execute it.

void arrive_at_barrier(Warp& warp, u32 lanes);
void arrive_at_warpgroup(Warp& warp, u32 lanes);
void arrive_at_cluster(Warp& warp, u32 lanes);
void wait_for_cluster(Warp& warp, u32 lanes);
void set_registers(Warp& warp, u32 lanes);

/// Lanes have exited: opens barriers that waited only for them.
void open_barriers_without(Warp& warp);

// What a deadlock's description says: "arrived 64 of 128".

std::string describe_barrier(const Warp& warp, u32 lanes);
std::string describe_cluster_barrier(const Cluster& cluster);
std::string describe_register_pool(const Warp& warp, u32 count);

/// Registers per thread that a launch gives a warp, for setmaxnreg; 0: the kernel does not say.
u32 registers_of_launch(const struct Function& function);

}  // namespace ptxsim
