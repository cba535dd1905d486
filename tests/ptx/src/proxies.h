// The generic proxy and the async proxy see shared memory each in its own time: what one did, the
// other sees, or may undo, only behind a fence.proxy.async. Told apart by 16 bytes.
//
// Each warp has a clock, which its fences and meetings move on. An access is covered once a fence
// came after it: of its own lane; of a lane of its warp, after all that live met (bar.warp.sync,
// .sync, .aligned); or of another warp that a barrier or mbarrier told of it.
//
// Stricter than the manual's causality order (section 8.9): a part of a warp that meets orders
// nothing; a part that arrives tells only of what was before the last meeting of all; 16 bytes are
// one location; neither flags in memory nor other blocks' arrivals at an mbarrier order anything.
// Less strict: what one lane is told its warp knows; a fence counts once it was executed, whatever
// orders it before the async proxy's access; accesses of one block to another's shared memory, and
// to global memory, are not looked at.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <vector>

#include "types.h"

namespace ptxsim {

struct Warp;
struct Block;

constexpr u32 kMaxWarps = 32;  // Of a block.

/// By warp of a block: accesses of all its lanes up to this time are ordered before.
using Times = std::array<u32, kMaxWarps>;
void join(Times& times, const Times& others);

/// Of a warp.
struct Fences {
  u32 now = 1;
  u32 met = 0;                  // When all lanes last met.
  Times known = {};             // What this warp was told of the block's warps.
  u32 covered[kWarpSize] = {};  // By lane: when it last executed a fence.
};

/// Per 16 bytes of a block's shared memory: who accessed them last through the generic proxy.
struct SharedAccesses {
  struct Access {
    u32 time = 0;
    u32 lanes = 0;
  };
  struct Kind {
    std::vector<u32> warps;  // Bits: whose `by_warp` holds.
    std::array<std::vector<Access>, kMaxWarps> by_warp;
  };
  Kind reads, writes;
  Times covered = {};  // By warp, of all its lanes: by fences of others.
  /// What arrivals told: named barriers, then the cluster's.
  static constexpr u32 kClusterBarrier = 16;
  std::array<Times, kClusterBarrier + 1> barriers = {};
};

// Called only where Options::check is set; addresses of global memory are ignored, and remote
// accesses to another block's shared memory.

/// ld, st, atom, ldmatrix, stmatrix; cp.async when it is known to be complete.
void note_generic_write(Warp& warp, u32 lane, const u8* at, u64 bytes);
void note_generic_reads(Warp& warp, u32 lanes, const u8* const* pointers, u64 bytes);
void note_generic_writes(Warp& warp, u32 lanes, const u8* const* pointers, u64 bytes);
/// Bulk stores and wgmma read shared memory, bulk loads write it: when they are issued. They fail
/// where a generic write (for both) or read (for a load) is not behind a fence; what is, is
/// history.
void check_async_read(Warp& warp, const u8* at, u64 bytes);
void check_async_write(Warp& warp, const u8* at, u64 bytes);

// ---- Order between lanes and warps

void fence_proxy_async(Warp& warp, u32 lanes);
/// bar.warp.sync and all that lanes execute together.
void note_meeting(Warp& warp, u32 lanes);
/// What these lanes pass on to whom they release.
Times publish(Warp& warp, u32 lanes);
/// A block's or the cluster's (kClusterBarrier) barrier: at arrival; when it lets a warp go on.
void note_arrival(Warp& warp, u32 lanes, u32 barrier);
void note_release(Warp& warp, u32 barrier);
/// Whether a fence covers what this lane of the block did at `time`.
bool is_covered(const Block& block, u32 warp, u32 lane, u32 time);

}  // namespace ptxsim
