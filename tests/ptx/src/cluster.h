// A cluster's life: its blocks are set up, and run to their end.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "state.h"

namespace ptxsim {

/// Memory of the blocks that run, kept from one cluster to the next.
struct Buffers {
  std::vector<u8> registers, shared, local;
};

/// Sets up cluster `index` of the launch. Registers, shared and local memory hold poison, but for
/// what a register holds from the start (Function::initial).
void set_up(Cluster& cluster, u32 index, Buffers& buffers);

/// Runs all warps to their end.
/// @param is_first Tells whether all clusters before this one are over: until then, another host
/// thread may yet write what the cluster waits for.
void run_cluster(Cluster& cluster, const std::function<bool()>& is_first);

/// What each group of lanes does, or waits for.
std::string describe(const Cluster& cluster);

}  // namespace ptxsim
