// SPDX-License-Identifier: Apache-2.0
#include "proxies.h"

#include <algorithm>
#include <string>

#include "lanes.h"
#include "memory.h"
#include "state.h"

namespace ptxsim {
namespace {

constexpr u64 kGranule = 16;

using Access = SharedAccesses::Access;
using Kind = SharedAccesses::Kind;

/// The granules of a block's shared memory that contain some bytes.
struct Granules {
  u64 first = 0, past = 0;
};
Granules granules_of(const Block& block, const u8* at, u64 bytes) {
  const u64 offset = static_cast<u64>(at - block.shared);
  return {offset / kGranule, (offset + bytes + kGranule - 1) / kGranule};
}

bool is_in(const Block& block, const u8* at) {
  return at >= block.shared && at < block.shared + block.shared_bytes;
}

u32 uncovered(const Block& block, u32 warp, const Access& access) {
  if (access.time <= block.accesses.covered[warp]) return 0;
  u32 lanes = 0;
  const u32* const covered = block.warps[warp].fences.covered;
  each_lane(access.lanes,
            [&](u32 lane) { lanes |= static_cast<u32>(access.time > covered[lane]) << lane; });
  return lanes;
}

void make_room(const Warp& warp, Kind& kind) {
  const u64 granules = warp.block->shared_bytes / kGranule + 1;
  if (kind.warps.size() < granules) kind.warps.resize(granules);
  std::vector<Access>& accesses = kind.by_warp[warp.id];
  if (accesses.size() < granules) accesses.resize(granules);
}

void note(const Warp& warp, Kind& kind, u32 lane, const u8* at, u64 bytes) {
  const Granules granules = granules_of(*warp.block, at, bytes);
  const u32 bit = 1u << warp.id;
  for (u64 i = granules.first; i < granules.past; ++i) {
    Access& access = kind.by_warp[warp.id][i];
    if ((kind.warps[i] & bit) == 0) {
      kind.warps[i] |= bit;
      access = {warp.fences.now, 0};
    } else if (access.time != warp.fences.now) {
      access = {warp.fences.now, uncovered(*warp.block, warp.id, access)};
    }
    access.lanes |= 1u << lane;
  }
}

void note_all(Warp& warp, Kind& kind, u32 lanes, const u8* const* pointers, u64 bytes) {
  if (!warp.kernel->uses_async_proxy) return;
  make_room(warp, kind);
  each_lane(lanes, [&](u32 lane) {
    if (is_in(*warp.block, pointers[lane])) note(warp, kind, lane, pointers[lane], bytes);
  });
}

[[noreturn]] void fail_uncovered(Warp& warp, const Block& block, u64 granule, u32 accessor,
                                 u32 lanes, const char* now, const char* before) {
  std::string text = "missing fence.proxy.async: the async proxy " + std::string(now) +
                     " shared memory at " + std::to_string(granule * kGranule - kSharedBase) +
                     ", which warp " + std::to_string(accessor) + " lane " +
                     std::to_string(first_lane(lanes)) + " " + before;
  if (&block != warp.block) text += " in block " + std::to_string(block.rank) + " of the cluster";
  fail(warp, text);
}

/// Fails for accesses that no fence covers, and forgets the others.
void check(Warp& warp, Block& block, Kind& kind, const u8* at, u64 bytes, const char* now,
           const char* before) {
  const Granules granules = granules_of(block, at, bytes);
  const u64 past = std::min<u64>(granules.past, kind.warps.size());
  for (u64 i = granules.first; i < past; ++i) {
    for (u32 warps = kind.warps[i]; warps != 0; warps &= warps - 1) {
      const u32 accessor = first_lane(warps);
      const u32 lanes = uncovered(block, accessor, kind.by_warp[accessor][i]);
      if (lanes != 0) fail_uncovered(warp, block, i, accessor, lanes, now, before);
    }
    kind.warps[i] = 0;
  }
}

}  // namespace

void join(Times& times, const Times& others) {
  for (u32 i = 0; i < kMaxWarps; ++i) times[i] = std::max(times[i], others[i]);
}

void note_generic_write(Warp& warp, u32 lane, const u8* at, u64 bytes) {
  if (!warp.kernel->uses_async_proxy || !is_in(*warp.block, at)) return;
  make_room(warp, warp.block->accesses.writes);
  note(warp, warp.block->accesses.writes, lane, at, bytes);
}

void note_generic_reads(Warp& warp, u32 lanes, const u8* const* pointers, u64 bytes) {
  note_all(warp, warp.block->accesses.reads, lanes, pointers, bytes);
}

void note_generic_writes(Warp& warp, u32 lanes, const u8* const* pointers, u64 bytes) {
  note_all(warp, warp.block->accesses.writes, lanes, pointers, bytes);
}

void check_async_read(Warp& warp, const u8* at, u64 bytes) {
  Block* const block = block_of(warp, at);
  if (block == nullptr) return;
  check(warp, *block, block->accesses.writes, at, bytes, "reads", "wrote");
}

void check_async_write(Warp& warp, const u8* at, u64 bytes) {
  Block* const block = block_of(warp, at);
  if (block == nullptr) return;
  check(warp, *block, block->accesses.writes, at, bytes, "overwrites", "wrote");
  check(warp, *block, block->accesses.reads, at, bytes, "overwrites", "read");
}

void fence_proxy_async(Warp& warp, u32 lanes) {
  Fences& fences = warp.fences;
  Times& covered = warp.block->accesses.covered;
  each_lane(lanes, [&](u32 lane) { fences.covered[lane] = fences.now; });
  join(covered, fences.known);
  covered[warp.id] = std::max(covered[warp.id], fences.met);
  ++fences.now;
}

void note_meeting(Warp& warp, u32 lanes) {
  if (lanes == warp.alive) warp.fences.met = warp.fences.now++;
}

Times publish(Warp& warp, u32 lanes) {
  Fences& fences = warp.fences;
  if (lanes == warp.alive) fences.met = fences.now;
  Times times = fences.known;
  times[warp.id] = fences.met;
  ++fences.now;
  return times;
}

void note_arrival(Warp& warp, u32 lanes, u32 barrier) {
  join(warp.block->accesses.barriers[barrier], publish(warp, lanes));
}

void note_release(Warp& warp, u32 barrier) {
  join(warp.fences.known, warp.block->accesses.barriers[barrier]);
}

bool is_covered(const Block& block, u32 warp, u32 lane, u32 time) {
  return time <= block.accesses.covered[warp] || time <= block.warps[warp].fences.covered[lane];
}

}  // namespace ptxsim
