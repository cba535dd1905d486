// The life of a cluster: sets up its blocks, and runs them to their end.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "state.h"

namespace ptxsim {

/// Memory of the running blocks, reused from one cluster to the next.
struct Buffers {
  std::vector<u8> registers, shared, local;
};

/// Sets up cluster `index` of the launch. Registers, shared and local memory hold poison, except
/// registers with an initial value (Function::initial).
void set_up(Cluster& cluster, u32 index, Buffers& buffers);

/// Runs all warps to their end. @param is_first Returns whether all clusters before this one are
/// done. Until then, another host thread may still write what the cluster waits for.
void run_cluster(Cluster& cluster, const std::function<bool()>& is_first);

/// Text that says what each group of lanes does or waits for.
std::string describe(const Cluster& cluster);

}  // namespace ptxsim
