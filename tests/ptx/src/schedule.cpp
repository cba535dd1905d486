// SPDX-License-Identifier: Apache-2.0
#include "schedule.h"

#include <algorithm>
#include <bit>

#include "groups.h"
#include "lanes.h"
#include "undefined.h"

namespace ptxsim {
namespace {

u32 lanes_with_guard(const Warp& warp, const Op& op, u32 lanes) {
  if (!op.has_guard) return lanes;
  const u32 guard = warp.predicate(op.guard);
  return lanes & (op.guard_negated ? ~guard : guard);
}

void count_instruction(Warp& warp, u32 pc, u32 active) {
  Counts& counts = *warp.cluster->counts;
  counts.ops[pc] += active != 0;
  counts.thread_instructions += static_cast<u64>(std::popcount(active));
}

// The functions below execute instructions that do more than step to the next one. The current
// group is at `warp.op`; `active` of its lanes, at least one, execute it. Each function sets the
// group's pc.

void branch(Warp& warp, u32 active) {
  Group& group = warp.groups[warp.current];
  const u32 others = group.lanes & ~active;
  const u32 next = group.pc + 1;
  group.pc = warp.op->targets[0];
  group.lanes = active;
  if (others != 0) warp.groups.push_back({.pc = next, .lanes = others});
}

void branch_by_table(Warp& warp, u32 active) {
  const Op& op = *warp.op;
  const u32* const index = warp.lanes<u32>(op.index);
  u32 outside = 0;
  each_lane(active,
            [&](u32 l) { outside |= static_cast<u32>(index[l] >= op.targets.size()) << l; });
  if (outside != 0) {
    fail(warp,
         "brx.idx to entry " + std::to_string(index[first_lane(outside)]) + " of " +
             std::to_string(op.targets.size()),
         outside);
  }
  // Lanes whose guard is false go on; the others branch, those of one index together.
  Group group = warp.groups[warp.current];
  for (u32 rest = active; rest != 0;) {
    const u32 value = index[first_lane(rest)];
    u32 same = 0;
    each_lane(rest, [&](u32 l) { same |= static_cast<u32>(index[l] == value) << l; });
    rest &= ~same;
    group.lanes &= ~same;
    warp.groups.push_back({.pc = op.targets[value], .lanes = same});
  }
  ++group.pc;
  warp.groups[warp.current] = group;
  if (group.lanes == 0) {
    warp.groups.erase(warp.groups.begin() + static_cast<std::ptrdiff_t>(warp.current));
  }
}

void exit_lanes(Warp& warp, u32 active) {
  if (options().check) {
    check_exit(warp);
    check_exit_copies(warp, active);
  }
  warp.alive &= ~active;
  Group& group = warp.groups[warp.current];
  group.lanes &= ~active;
  ++group.pc;
  if (group.lanes == 0) {
    warp.groups.erase(warp.groups.begin() + static_cast<std::ptrdiff_t>(warp.current));
  }
  ++warp.cluster->events;
  wake_meeting(warp);
  open_barriers_without(warp);
}

/// Executes an instruction at which groups met, and which leave together; if asked to, also makes
/// the warpgroup's other warps meet.
void execute_together(Warp& warp, u32 active) {
  const Op& op = *warp.op;
  if (!meet_warp(warp, active)) return;
  before_execution(warp, op, active);
  if (options().check) note_meeting(warp, active);
  op.execute(warp, active);
  if (op.meets_warpgroup && options().warpgroups_meet) {
    arrive_at_warpgroup(warp, active);
  } else {
    ++warp.groups[warp.current].pc;
  }
}

void meet_at_barrier(Warp& warp, u32 active) {
  const Op& op = *warp.op;
  if (op.barrier != nullptr && op.barrier->aligned && !meet_warp(warp, active)) return;
  before_execution(warp, op, active);
  if (active != warp.groups[warp.current].lanes) {
    Group& group = warp.groups[warp.current];
    const Group others = {.pc = group.pc + 1, .lanes = group.lanes & ~active};
    group.lanes = active;
    warp.groups.push_back(others);
  }
  switch (op.flow) {
    case Flow::kBarrier:
      return arrive_at_barrier(warp, active);
    case Flow::kClusterArrive:
      return arrive_at_cluster(warp, active);
    default:
      return wait_for_cluster(warp, active);
  }
}

void poll(Warp& warp, u32 active) {
  const Op& op = *warp.op;
  before_execution(warp, op, active);
  warp.poll_failed = op.flow == Flow::kYield;
  op.execute(warp, active);
  Group& group = warp.groups[warp.current];
  if (warp.poll_failed) {
    if (op.flow == Flow::kPoll) ++warp.cluster->counts->polls_failed;
    group.yielded = true;
    group.idle = group.pc;
  }
  ++group.pc;
}

/// Everything but Flow::kNext.
void execute_flow(Warp& warp, u32 active) {
  const Op& op = *warp.op;
  switch (op.flow) {
    case Flow::kBranch:
    case Flow::kBranchTable:
    case Flow::kExit:
    case Flow::kTrap:
      before_execution(warp, op, active);
      if (op.flow == Flow::kBranch) return branch(warp, active);
      if (op.flow == Flow::kBranchTable) return branch_by_table(warp, active);
      if (op.flow == Flow::kExit) return exit_lanes(warp, active);
      fail(warp, "trap", active);
    case Flow::kMeetMask:
    case Flow::kWarpBarrier: {
      const bool as_one =
          op.flow == Flow::kMeetMask ? meet_mask(warp, active) : meet_at_warp_barrier(warp, active);
      if (as_one) ++warp.groups[warp.current].pc;
      return;
    }
    case Flow::kMeetWarp:
      return execute_together(warp, active);
    case Flow::kBarrier:
    case Flow::kClusterArrive:
    case Flow::kClusterWait:
      return meet_at_barrier(warp, active);
    case Flow::kSetRegisters:
      if (meet_warp(warp, active)) set_registers(warp, active);
      return;
    case Flow::kPoll:
    case Flow::kYield:
      return poll(warp, active);
    case Flow::kNext:
      return;
  }
}

/// Whether the current group may go on without a new choice.
bool still_chosen(const Warp& warp, std::size_t num_groups, std::size_t current) {
  if (num_groups != 1 || warp.groups.size() != 1 || warp.current != current) return false;
  const Group& group = warp.groups[0];
  return group.state == Group::State::kReady && !group.yielded;
}

/// Runs the current group until groups change, it meets another, or `left` instructions have run.
/// @return the number of instructions left.
template <bool kChecked>
u64 run_group(Warp& warp, u64 left) {
  const Op* const ops = warp.kernel->ops.data();
  const std::size_t current = warp.current;
  const std::size_t num_groups = warp.groups.size();
  const u32 meeting = next_meeting(warp);
  u32 pc = warp.groups[current].pc;
  const u32 lanes = warp.groups[current].lanes;
  while (left != 0) {
    const Op& op = ops[pc];
    warp.op = &op;
    if constexpr (kChecked) {
      if (op.has_guard) check_guard(warp, op, lanes);
    }
    const u32 active = lanes_with_guard(warp, op, lanes);
    --left;
    count_instruction(warp, pc, active);
    if (op.flow == Flow::kNext || active == 0) {
      if (active != 0) {
        if constexpr (kChecked) before_execution(warp, op, active);
        op.execute(warp, active);
      }
      if (++pc == meeting) break;
      continue;
    }
    if (op.flow == Flow::kBranch && active == lanes && num_groups == 1) {
      pc = op.targets[0];
      continue;
    }
    warp.groups[current].pc = pc;
    execute_flow(warp, active);
    if (!still_chosen(warp, num_groups, current) || warp.groups[current].lanes != lanes)
      return left;
    pc = warp.groups[current].pc;
  }
  warp.groups[current].pc = pc;
  return left;
}

}  // namespace

TurnEnd run_warp(Warp& warp, u64 quantum) {
  for (Group& group : warp.groups) group.yielded = false;
  if (warp.takes_turns && num_ready(warp) > 1 && warp.current < warp.groups.size()) {
    warp.groups[warp.current].yielded = true;
  }
  const bool checked = !warp.defined.empty();
  u64 left = quantum;
  while (left != 0 && choose_group(warp)) {
    left = checked ? run_group<true>(warp, left) : run_group<false>(warp, left);
  }
  warp.cluster->counts->warp_instructions += quantum - left;
  warp.cluster->clock += quantum - left;
  if (warp.groups.empty()) return TurnEnd::kExited;
  if (left == 0) return TurnEnd::kQuantum;
  const bool idle = std::any_of(warp.groups.begin(), warp.groups.end(),
                                [](const Group& group) { return group.yielded; });
  return idle ? TurnEnd::kIdle : TurnEnd::kBlocked;
}

}  // namespace ptxsim
