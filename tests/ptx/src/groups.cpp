// SPDX-License-Identifier: Apache-2.0
#include "groups.h"

#include <algorithm>

#include "failure.h"
#include "lanes.h"
#include "undefined.h"

namespace ptxsim {
namespace {

using State = Group::State;

void merge(Warp& warp) {
  std::vector<Group>& groups = warp.groups;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    for (std::size_t j = i + 1; j < groups.size();) {
      Group& one = groups[i];
      const Group& other = groups[j];
      if (one.pc != other.pc || one.state == State::kBlocked || other.state == State::kBlocked) {
        ++j;
        continue;
      }
      one.lanes |= other.lanes;
      one.state = State::kReady;
      one.yielded = one.yielded && other.yielded;
      groups.erase(groups.begin() + static_cast<std::ptrdiff_t>(j));
    }
  }
}

bool can_run(const Group& group) { return group.state == State::kReady && !group.yielded; }

u32 value_in(const Warp& warp, Reg reg, u32 lane) { return warp.lanes<u32>(reg)[lane]; }

/// The lanes whose member mask is equal to that of the first.
u32 lanes_of_one_mask(const Warp& warp, Reg members, u32 lanes) {
  const u32* const masks = warp.lanes<u32>(members);
  const u32 mask = masks[first_lane(lanes)];
  u32 same = 0;
  each_lane(lanes, [&](u32 lane) { same |= static_cast<u32>(masks[lane] == mask) << lane; });
  return same;
}

/// Sets `mask` to the first lane's mask. Returns whether all lanes name it and it names all of
/// them, which is the common case.
bool name_one_mask(const Warp& warp, Reg members, u32 lanes, u32& mask) {
  const u32* const masks = warp.lanes<u32>(members);
  const u32 first = masks[first_lane(lanes)];
  u32 differences = 0;
  each_lane(lanes, [&](u32 lane) { differences |= masks[lane] ^ first; });
  mask = first;
  return differences == 0 && (lanes & ~first) == 0;
}

void check_members(const Warp& warp, Reg members, u32 lanes) {
  const u32* const masks = warp.lanes<u32>(members);
  u32 outside = 0;
  each_lane(lanes,
            [&](u32 lane) { outside |= static_cast<u32>(!(masks[lane] >> lane & 1)) << lane; });
  if (outside != 0) fail(warp, "the mask of lanes does not name the lane itself", outside);
}

void execute_met(Warp& warp, u32 lanes) {
  before_execution(warp, *warp.op, lanes);
  if (options().check) note_meeting(warp, lanes);
  warp.op->execute(warp, lanes);
}

/// Splits the current group: `waiting` stay where they are, the others go on.
void leave_behind(Warp& warp, u32 waiting) {
  Group& group = warp.groups[warp.current];
  const u32 others = group.lanes & ~waiting;
  group.lanes = waiting;
  group.state = State::kMeeting;
  if (others != 0) warp.groups.push_back({.pc = group.pc + 1, .lanes = others});
}

/// bar.warp.sync: releases all lanes of one mask, wherever they are, once all have arrived.
void open_warp_barriers(Warp& warp, Reg members, u32 lanes) {
  const auto at_barrier = [&](const Group& group) {
    return group.state == State::kMeeting && warp.kernel->ops[group.pc].flow == Flow::kWarpBarrier;
  };
  const u32 mask = value_in(warp, members, first_lane(lanes));
  u32 here = 0;
  for (const Group& group : warp.groups) {
    if (!at_barrier(group)) continue;
    const u32* const masks = warp.lanes<u32>(warp.kernel->ops[group.pc].members);
    each_lane(group.lanes, [&](u32 l) { here |= static_cast<u32>(masks[l] == mask) << l; });
  }
  if ((mask & warp.alive & ~here) != 0) return;
  if (options().check) note_meeting(warp, here);
  const std::size_t num_groups = warp.groups.size();
  for (std::size_t i = 0; i < num_groups; ++i) {
    Group& group = warp.groups[i];
    if (!at_barrier(group) || (group.lanes & here) == 0) continue;
    const u32 others = group.lanes & ~here;
    const u32 pc = group.pc;
    group = {.pc = pc + 1, .lanes = group.lanes & here};
    if (others != 0) warp.groups.push_back({.pc = pc, .lanes = others, .state = State::kMeeting});
  }
}

}  // namespace

bool choose_group(Warp& warp) {
  if (warp.groups.size() > 1) merge(warp);
  std::size_t best = warp.groups.size();
  for (std::size_t i = 0; i < warp.groups.size(); ++i) {
    if (!can_run(warp.groups[i])) continue;
    if (best == warp.groups.size() || warp.groups[i].pc < warp.groups[best].pc) best = i;
  }
  if (best == warp.groups.size()) return false;
  warp.current = best;
  return true;
}

std::size_t num_ready(const Warp& warp) {
  return static_cast<std::size_t>(
      std::count_if(warp.groups.begin(), warp.groups.end(),
                    [](const Group& group) { return group.state == State::kReady; }));
}

u32 next_meeting(const Warp& warp) {
  u32 next = kAlone;
  const u32 pc = warp.groups[warp.current].pc;
  for (std::size_t i = 0; i < warp.groups.size(); ++i) {
    const Group& group = warp.groups[i];
    if (i == warp.current || group.state == State::kBlocked || group.pc <= pc) continue;
    next = std::min(next, group.pc);
  }
  return next;
}

void split_current(Warp& warp, u32 lanes) {
  Group& group = warp.groups[warp.current];
  const u32 others = group.lanes & ~lanes;
  group.lanes = lanes;
  const u32 pc = group.pc;
  if (others != 0) warp.groups.push_back({.pc = pc, .lanes = others});
}

void block_current(Warp& warp) { warp.groups[warp.current].state = State::kBlocked; }

Group& blocked_group(Warp& warp, u32 lanes) {
  const auto group = std::find_if(warp.groups.begin(), warp.groups.end(), [&](const Group& g) {
    return g.state == State::kBlocked && g.lanes == lanes;
  });
  if (group == warp.groups.end()) fail(warp, "no group is blocked where one was", lanes);
  return *group;
}

void release(Warp& warp, u32 lanes) {
  Group& group = blocked_group(warp, lanes);
  group.state = State::kReady;
  ++group.pc;
}

u32 lanes_missed(const Warp& warp, const Group& group) {
  const Op& op = warp.kernel->ops[group.pc];
  u32 needed = warp.alive;
  if (op.flow == Flow::kMeetMask || op.flow == Flow::kWarpBarrier) {
    needed = 0;
    each_lane(group.lanes, [&](u32 lane) { needed |= value_in(warp, op.members, lane); });
  }
  return needed & warp.alive & ~group.lanes;
}

bool meet_mask(Warp& warp, u32 active) {
  const Op& op = *warp.op;
  check_operand(warp, op.members, active);
  u32 only_mask = 0;
  if (name_one_mask(warp, op.members, active, only_mask) &&
      (only_mask & warp.alive & ~active) == 0) {
    execute_met(warp, active);
    return true;
  }
  check_members(warp, op.members, active);
  u32 waiting = 0;
  for (u32 rest = active; rest != 0;) {
    const u32 same = lanes_of_one_mask(warp, op.members, rest);
    rest &= ~same;
    const u32 mask = value_in(warp, op.members, first_lane(same));
    if ((mask & warp.alive & ~same) != 0) {
      waiting |= same;
      continue;
    }
    execute_met(warp, same);
  }
  if (waiting == 0) return true;
  leave_behind(warp, waiting);
  return false;
}

bool meet_at_warp_barrier(Warp& warp, u32 active) {
  const Reg members = warp.op->members;
  check_operand(warp, members, active);
  u32 mask = 0;
  if (name_one_mask(warp, members, active, mask) && (mask & warp.alive & ~active) == 0) {
    if (options().check) note_meeting(warp, active);
    return true;
  }
  check_members(warp, members, active);
  leave_behind(warp, active);
  for (u32 rest = active; rest != 0;) {
    const u32 same = lanes_of_one_mask(warp, members, rest);
    rest &= ~same;
    open_warp_barriers(warp, members, same);
  }
  return false;
}

bool meet_warp(Warp& warp, u32 active) {
  Group& group = warp.groups[warp.current];
  if (active != group.lanes) {
    fail(warp,
         "an .aligned instruction that lanes " + lanes_text(group.lanes & ~active) +
             " of the same group skip: their guard is false",
         active);
  }
  if (active == warp.alive) return true;
  group.state = State::kMeeting;
  return false;
}

void wake_meeting(Warp& warp) {
  for (Group& group : warp.groups) {
    if (group.state == State::kMeeting) group.state = State::kReady;
  }
}

}  // namespace ptxsim
