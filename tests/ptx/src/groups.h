// The groups of a warp: lanes that share a program counter. Decides which runs next, how they split
// and merge.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "state.h"

namespace ptxsim {

/// Merges groups at the same instruction, and sets Warp::current to the one that is furthest
/// behind. Returns false if none can go on in this turn.
bool choose_group(Warp& warp);

/// Number of groups that can go on without another.
std::size_t num_ready(const Warp& warp);

/// The instruction at or after which the current group must look for others: there it meets one, or
/// is no longer the furthest behind. kAlone: never.
constexpr u32 kAlone = ~0u;
u32 next_meeting(const Warp& warp);

/// Keeps `lanes` in the current group; the others become a ready group at the same instruction.
void split_current(Warp& warp, u32 lanes);

/// Blocks the current group; release() lets it continue after its instruction.
void block_current(Warp& warp);
Group& blocked_group(Warp& warp, u32 lanes);
void release(Warp& warp, u32 lanes);

/// The lanes that the group waits for at its instruction (.sync, .aligned).
u32 lanes_missed(const Warp& warp, const Group& group);

// The current group is at Warp::op, whose flow is one of kMeet* or kWarpBarrier; `active` of its
// lanes execute it (the others' guard is false). Returns true if the group goes on as one;
// otherwise groups have changed.

bool meet_mask(Warp& warp, u32 active);
bool meet_at_warp_barrier(Warp& warp, u32 active);
/// .aligned: returns whether all lanes of the warp are here.
bool meet_warp(Warp& warp, u32 active);

/// Lanes have exited: groups that waited for them check again.
void wake_meeting(Warp& warp);

}  // namespace ptxsim
