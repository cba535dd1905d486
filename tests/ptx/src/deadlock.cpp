// Describes where all warps are when none can go on.
// SPDX-License-Identifier: Apache-2.0
#include "cluster.h"
#include "failure.h"
#include "groups.h"

namespace ptxsim {
namespace {

std::string blocked_text(const Warp& warp, const Group& group, const Op& op) {
  switch (op.flow) {
    case Flow::kClusterWait:
      return "waits at barrier.cluster.wait " + describe_cluster_barrier(*warp.cluster);
    case Flow::kSetRegisters:
      return "waits at setmaxnreg for " + describe_register_pool(warp, op.set_registers.count);
    case Flow::kBarrier:
      return "waits at " + describe_barrier(warp, group.lanes);
    default:
      return "waits for the other warps of its warpgroup";
  }
}

void describe(const Warp& warp, const Group& group, std::string& text) {
  const Op* op = &warp.kernel->ops[group.pc];
  std::string does = "runs";
  if (group.state == Group::State::kBlocked) {
    does = blocked_text(warp, group, *op);
  } else if (group.state == Group::State::kMeeting) {
    does = "waits for lanes " + lanes_text(lanes_missed(warp, group));
  } else if (group.yielded) {
    op = &warp.kernel->ops[group.idle];
    const bool sleeps = op->flow == Flow::kYield;
    does = sleeps ? "sleeps" : "polls " + (op->source == nullptr ? "" : op->source->opcode);
  }
  text += "\n  " + block_text(*warp.block) + ", warp " + std::to_string(warp.id) + ", lanes " +
          lanes_text(group.lanes) + ": " + does + "; " + instruction_text(*op);
}

}  // namespace

std::string describe(const Cluster& cluster) {
  std::string text;
  for (const Block& block : cluster.blocks) {
    for (const Warp& warp : block.warps) {
      for (const Group& group : warp.groups) describe(warp, group, text);
    }
  }
  return text;
}

}  // namespace ptxsim
