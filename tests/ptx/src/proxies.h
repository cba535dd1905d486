// The generic proxy and the async proxy see shared memory each in its own time: what one
// did, the other sees, or may undo, only behind a fence.proxy.async. Told apart by 16 bytes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "types.h"

namespace ptxsim {

struct Warp;
struct Block;

/// fence.proxy.async so far, by lane.
struct Fences {
  u32 count[kWarpSize] = {};
};

/// Per 16 bytes of a block's shared memory: who accessed them last through the generic proxy.
struct SharedAccesses {
  std::vector<u32> writers;
  std::vector<std::vector<u32>> readers;
};

// Called only where Options::check is set; addresses of global memory are ignored.

/// ld, st, atom, cp.async, ldmatrix, stmatrix of a lane.
void note_generic_read(Warp& warp, u32 lane, const u8* at, u64 bytes);
void note_generic_write(Warp& warp, u32 lane, const u8* at, u64 bytes);
/// Bulk stores and wgmma read shared memory, bulk loads write it: when they are issued. They fail
/// where a generic write (for both) or read (for a load) is not behind a fence.
void check_async_read(Warp& warp, const u8* at, u64 bytes);
void check_async_write(Warp& warp, const u8* at, u64 bytes);

}  // namespace ptxsim
