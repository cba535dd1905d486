// The generic proxy and the async proxy each see shared memory in their own time: a
// fence.proxy.async must lie between what one does and what the other reads or overwrites. Tracked
// per 16 bytes.
//
// Each warp has a clock, which its fences and meetings advance. An access is covered once a later
// fence was executed: by its own lane; by a lane of its warp, after all live lanes met
// (bar.warp.sync, .sync, .aligned); or by another warp that learnt of the access from a barrier or
// mbarrier.
//
// Stricter than the manual's causality order (section 8.9): a meeting of a part of a warp orders
// nothing; a part that arrives only publishes what was before the last meeting of all lanes; 16
// bytes are one location; neither flags in memory nor other blocks' arrivals at an mbarrier order
// anything. Less strict: what one lane learns, its whole warp knows; a fence counts once it was
// executed, whatever orders it before the async proxy's access; a block's accesses to another
// block's shared memory, and those to global memory, are not checked.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <vector>

#include "types.h"

namespace ptxsim {

struct Warp;
struct Block;

constexpr u32 kMaxWarps = 32;  // Per block.

/// Per warp of a block: accesses of all its lanes up to this time are ordered before.
using Times = std::array<u32, kMaxWarps>;
void join(Times& times, const Times& others);

/// A warp's clock and fences.
struct Fences {
  u32 now = 1;
  u32 met = 0;                  // When all lanes last met.
  Times known = {};             // Times of the block's warps that this warp knows.
  u32 covered[kWarpSize] = {};  // Per lane: time of its last fence.
};

/// For each 16 bytes of a block's shared memory: who accessed them last through the generic proxy.
struct SharedAccesses {
  struct Access {
    u32 time = 0;
    u32 lanes = 0;
  };
  struct Kind {
    std::vector<u32> warps;  // Bit mask of the warps whose `by_warp` is valid.
    std::array<std::vector<Access>, kMaxWarps> by_warp;
  };
  Kind reads, writes;
  Times covered = {};  // Per warp, for all its lanes: covered by fences of others.
  /// What arrivals published: named barriers, then the cluster's.
  static constexpr u32 kClusterBarrier = 16;
  std::array<Times, kClusterBarrier + 1> barriers = {};
};

// Called only if Options::check is set; ignores global memory and accesses to another block's
// shared memory.

/// ld, st, atom, ldmatrix, stmatrix; cp.async when it is known to be complete.
void note_generic_write(Warp& warp, u32 lane, const u8* at, u64 bytes);
void note_generic_reads(Warp& warp, u32 lanes, const u8* const* pointers, u64 bytes);
void note_generic_writes(Warp& warp, u32 lanes, const u8* const* pointers, u64 bytes);
/// Called when bulk stores and wgmma, which read shared memory, and bulk loads, which write it, are
/// issued. Fail if a generic write (for both) or read (for a load) has no fence after it, and
/// forget accesses that have.
void check_async_read(Warp& warp, const u8* at, u64 bytes);
void check_async_write(Warp& warp, const u8* at, u64 bytes);

// ---- Order between lanes and warps

void fence_proxy_async(Warp& warp, u32 lanes);
/// For bar.warp.sync, and everything that lanes execute together.
void note_meeting(Warp& warp, u32 lanes);
/// What these lanes pass on to those that they release.
Times publish(Warp& warp, u32 lanes);
/// A named barrier, or the cluster's (kClusterBarrier): called at arrival, and when it lets a warp
/// go on.
void note_arrival(Warp& warp, u32 lanes, u32 barrier);
void note_release(Warp& warp, u32 barrier);
/// Whether a fence covers what this lane of the block did at `time`.
bool is_covered(const Block& block, u32 warp, u32 lane, u32 time);

}  // namespace ptxsim
