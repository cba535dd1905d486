// mbarrier objects (section 9.7.13.15): a word in shared memory, and a record beside it.
//
// From its low end the word holds 20 bits of pending arrivals, 20 of the arrivals per phase, 22 of
// the outstanding bytes (biased by 2^21), and at the top the phase's parity.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>

#include "proxies.h"
#include "ptx.h"
#include "types.h"

namespace ptxsim {

struct Warp;
struct Block;

/// An mbarrier that has been initialised, and not invalidated.
struct Mbarrier {
  u64 word = 0;  // The value that must be in shared memory.
  // Who initialised it, and when: the cluster's other threads and the async proxy may only use it
  // after a fence.
  u32 warp = 0, lane = 0, time = 0;
  bool init_fenced = false;  // By fence.mbarrier_init.
  // What arrivals published (proxies.h): `arriving` in this phase, `completed` up to the last one.
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

/// The mbarrier at a lane's shared or generic address; fails unless it is aligned and in bounds.
MbarrierPlace mbarrier_at(Warp& warp, u32 lane, Space space, u64 address);
/// Fails if a use by the async proxy or by another block has no fence before it by the lane that
/// initialised the mbarrier.
void check_init_fenced(Warp& warp, MbarrierPlace place, const char* user);

// All of these fail if there is no valid mbarrier, or if a count leaves its range.

void init_mbarrier(Warp& warp, u32 lane, MbarrierPlace place, u32 count);
void invalidate_mbarrier(Warp& warp, MbarrierPlace place);
/// @return the state before, which test_wait takes.
u64 mbarrier_state(Warp& warp, MbarrierPlace place);
void expect_bytes(Warp& warp, MbarrierPlace place, u32 bytes);
void complete_bytes(Warp& warp, MbarrierPlace place, u32 bytes);
void arrive(Warp& warp, MbarrierPlace place, u32 count, const Times& told);
/// Adds arrivals to those of this phase (cp.async.mbarrier.arrive).
void expect_arrivals(Warp& warp, MbarrierPlace place, u32 count);
/// Number of arrivals that this phase still waits for.
u32 pending_arrivals(u64 state);
/// Whether the phase of this parity is complete; if so, the warp learns what its arrivals
/// published.
bool test_phase(Warp& warp, MbarrierPlace place, u32 parity);
u32 parity_of(u64 state);
/// fence.mbarrier_init
void fence_mbarrier_init(Warp& warp, u32 lanes);

}  // namespace ptxsim
