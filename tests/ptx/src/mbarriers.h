// mbarrier objects (section 9.7.13.15): a word in shared memory, and what is known of it beside.
//
// The word holds, from its low end, 20 bits of pending arrivals, 20 of the arrivals of a phase, 22
// of the bytes outstanding (biased by 2^21), and at the top the phase's parity.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>

#include "proxies.h"
#include "ptx.h"
#include "types.h"

namespace ptxsim {

struct Warp;
struct Block;

/// An mbarrier that was initialised, and not invalidated.
struct Mbarrier {
  u64 word = 0;  // As it must be in shared memory.
  // Who initialised it, when: others of the cluster and the async proxy may use it only behind a
  // fence.
  u32 warp = 0, lane = 0, time = 0;
  bool init_fenced = false;  // By fence.mbarrier_init.
  // What arrivals told (proxies.h): in this phase too, and up to the last one.
  Times arriving = {}, completed = {};
};
struct Mbarriers {
  std::map<u64, Mbarrier> initialized;  // By offset in shared memory.
};

/// An mbarrier of a block of the cluster.
struct MbarrierPlace {
  Block* block = nullptr;
  u64 offset = 0;
};

/// Of a lane's address in shared memory or a generic one; fails unless it is aligned and in bounds.
MbarrierPlace mbarrier_at(Warp& warp, u32 lane, Space space, u64 address);
/// Fails if a use by the async proxy, or by another block, is not behind a fence of the lane that
/// initialised it.
void check_init_fenced(Warp& warp, MbarrierPlace place, const char* user);

// All fail if there is no valid mbarrier, or if a count leaves its range.

void init_mbarrier(Warp& warp, u32 lane, MbarrierPlace place, u32 count);
void invalidate_mbarrier(Warp& warp, MbarrierPlace place);
/// @return the state before: what test_wait takes.
u64 mbarrier_state(Warp& warp, MbarrierPlace place);
void expect_bytes(Warp& warp, MbarrierPlace place, u32 bytes);
void complete_bytes(Warp& warp, MbarrierPlace place, u32 bytes);
void arrive(Warp& warp, MbarrierPlace place, u32 count, const Times& told);
/// One more arrival in this phase (cp.async.mbarrier.arrive).
void expect_arrivals(Warp& warp, MbarrierPlace place, u32 count);
/// Arrivals that this phase still waits for.
u32 pending_arrivals(u64 state);
/// Whether the phase of this parity is complete; if it is, the warp knows what its arrivals told.
bool test_phase(Warp& warp, MbarrierPlace place, u32 parity);
u32 parity_of(u64 state);
/// fence.mbarrier_init
void fence_mbarrier_init(Warp& warp, u32 lanes);

}  // namespace ptxsim
