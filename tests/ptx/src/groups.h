// The groups of a warp: lanes that share a program counter. Which runs next, how they part and
// meet.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "state.h"

namespace ptxsim {

/// Makes one of groups that stand at the same instruction, and sets Warp::current to the one that
/// is furthest behind. False: none can go on in this turn.
bool choose_group(Warp& warp);

/// Groups that need nobody else to go on.
std::size_t num_ready(const Warp& warp);

/// The instruction, at or behind which the current group is to look for the others: it meets one
/// there, or is no longer the furthest behind. kAlone: never.
constexpr u32 kAlone = ~0u;
u32 next_meeting(const Warp& warp);

/// Leaves `lanes` to the current group; the others become a ready group at the same instruction.
void split_current(Warp& warp, u32 lanes);

/// Blocks the current group; release() lets it go on behind its instruction.
void block_current(Warp& warp);
Group& blocked_group(Warp& warp, u32 lanes);
void release(Warp& warp, u32 lanes);

/// Lanes that the group waits for at its instruction (.sync, .aligned).
u32 lanes_missed(const Warp& warp, const Group& group);

// The current group is at Warp::op, of one of the flows kMeet*, kWarpBarrier, which `active` of its
// lanes execute (the others' guard is false). True: it goes on as one; else groups have changed.

bool meet_mask(Warp& warp, u32 active);
bool meet_at_warp_barrier(Warp& warp, u32 active);
/// .aligned: whether all lanes of the warp are here.
bool meet_warp(Warp& warp, u32 active);

/// Lanes exited: others that waited for them look again.
void wake_meeting(Warp& warp);

}  // namespace ptxsim
