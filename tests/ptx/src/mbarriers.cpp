// SPDX-License-Identifier: Apache-2.0
#include "mbarriers.h"

#include <cstring>
#include <string>

#include "memory.h"
#include "state.h"

namespace ptxsim {
namespace {

constexpr s64 kMostCount = (1 << 20) - 1;  // For arrivals, and for bytes in either direction.
constexpr s64 kBias = s64{1} << 21;

struct PhaseCounts {
  s64 pending = 0, expected = 0, bytes = 0;
  u64 phase = 0;
};

s64 field(u64 word, int shift, int bits) {
  return static_cast<s64>((word >> shift) & ((u64{1} << bits) - 1));
}

PhaseCounts unpack(u64 word) {
  return {field(word, 0, 20), field(word, 20, 20), field(word, 40, 22) - kBias, word >> 63};
}

u64 pack(const PhaseCounts& counts) {
  return static_cast<u64>(counts.pending) | static_cast<u64>(counts.expected) << 20 |
         static_cast<u64>(counts.bytes + kBias) << 40 | counts.phase << 63;
}

u8* word_at(MbarrierPlace place) { return place.block->shared + place.offset; }

std::string name_of(const Warp& warp, MbarrierPlace place) {
  std::string name = "mbarrier at " + std::to_string(place.offset - kSharedBase);
  if (place.block != warp.block) {
    name += " of block " + std::to_string(place.block->rank) + " of the cluster";
  }
  return name;
}

/// The record of the mbarrier; fails if it is not initialised, or its word was overwritten.
Mbarrier& valid(Warp& warp, MbarrierPlace place) {
  auto& initialized = place.block->mbarriers.initialized;
  const auto found = initialized.find(place.offset);
  if (found == initialized.end()) {
    fail(warp, name_of(warp, place) + " was not initialised, or was invalidated");
  }
  u64 word;
  std::memcpy(&word, word_at(place), sizeof word);
  if (word != found->second.word) {
    fail(warp,
         name_of(warp, place) + " was overwritten by something that is no mbarrier operation");
  }
  return found->second;
}

void set_word(Warp& warp, MbarrierPlace place, Mbarrier& mbarrier, u64 word) {
  mbarrier.word = word;
  std::memcpy(word_at(place), &word, sizeof word);
  ++warp.cluster->events;
}

/// Ends the phase if it is complete.
void update(Warp& warp, MbarrierPlace place, Mbarrier& mbarrier, PhaseCounts counts) {
  if (counts.pending < 0) {
    fail(warp, "more arrivals at the " + name_of(warp, place) + " than the " +
                   std::to_string(counts.expected) + " it was initialised for");
  }
  if (counts.bytes > kMostCount || counts.bytes < -kMostCount) {
    fail(warp, "the transaction count of the " + name_of(warp, place) + " would be " +
                   std::to_string(counts.bytes) + ": out of range");
  }
  if (counts.pending == 0 && counts.bytes == 0) {
    counts = {counts.expected, counts.expected, 0, counts.phase ^ 1};
    mbarrier.completed = mbarrier.arriving;
  }
  set_word(warp, place, mbarrier, pack(counts));
}

}  // namespace

MbarrierPlace mbarrier_at(Warp& warp, u32 lane, Space space, u64 address) {
  check_aligned(warp, address, 8, "mbarrier");
  const u8* const at = lane_pointer(warp, lane, space, address, 8);
  Block* const block = block_of(warp, at);
  if (block == nullptr) fail(warp, "an mbarrier outside of shared memory", 1u << lane);
  return {block, static_cast<u64>(at - block->shared)};
}

void check_init_fenced(Warp& warp, MbarrierPlace place, const char* user) {
  if (!options().check) return;
  const Mbarrier& mbarrier = valid(warp, place);
  if (mbarrier.init_fenced ||
      is_covered(*place.block, mbarrier.warp, mbarrier.lane, mbarrier.time)) {
    return;
  }
  fail(warp, "missing fence.mbarrier_init or fence.proxy.async: " + std::string(user) +
                 " uses the " + name_of(warp, place) + ", which warp " +
                 std::to_string(mbarrier.warp) + " lane " + std::to_string(mbarrier.lane) +
                 " initialised");
}

void init_mbarrier(Warp& warp, u32 lane, MbarrierPlace place, u32 count) {
  if (place.block != warp.block) fail(warp, "mbarrier.init of another block's mbarrier");
  if (count == 0 || count > kMostCount) {
    fail(warp, "mbarrier.init with a count of " + std::to_string(count) + ": not in 1..1048575");
  }
  auto& initialized = place.block->mbarriers.initialized;
  if (const auto found = initialized.find(place.offset); found != initialized.end()) {
    const PhaseCounts old = unpack(found->second.word);
    if (old.pending != old.expected || old.bytes != 0) {
      fail(warp, "mbarrier.init over the " + name_of(warp, place) + ", whose phase is under way: " +
                     std::to_string(old.pending) + " of " + std::to_string(old.expected) +
                     " arrivals and " + std::to_string(old.bytes) + " bytes are missing");
    }
  }
  Mbarrier& mbarrier = initialized[place.offset];
  mbarrier = {.warp = warp.id, .lane = lane, .time = warp.fences.now};
  set_word(warp, place, mbarrier, pack({count, count, 0, 0}));
}

void invalidate_mbarrier(Warp& warp, MbarrierPlace place) {
  valid(warp, place);
  place.block->mbarriers.initialized.erase(place.offset);
  const u64 poison = 0xdeadbeefdeadbeef;
  std::memcpy(word_at(place), &poison, sizeof poison);
}

u64 mbarrier_state(Warp& warp, MbarrierPlace place) { return valid(warp, place).word; }

void expect_bytes(Warp& warp, MbarrierPlace place, u32 bytes) {
  Mbarrier& mbarrier = valid(warp, place);
  PhaseCounts counts = unpack(mbarrier.word);
  counts.bytes += bytes;
  update(warp, place, mbarrier, counts);
}

void complete_bytes(Warp& warp, MbarrierPlace place, u32 bytes) {
  Mbarrier& mbarrier = valid(warp, place);
  PhaseCounts counts = unpack(mbarrier.word);
  counts.bytes -= bytes;
  update(warp, place, mbarrier, counts);
}

void arrive(Warp& warp, MbarrierPlace place, u32 count, const Times& told) {
  Mbarrier& mbarrier = valid(warp, place);
  if (place.block == warp.block) join(mbarrier.arriving, told);
  PhaseCounts counts = unpack(mbarrier.word);
  counts.pending -= count;
  update(warp, place, mbarrier, counts);
}

void expect_arrivals(Warp& warp, MbarrierPlace place, u32 count) {
  Mbarrier& mbarrier = valid(warp, place);
  PhaseCounts counts = unpack(mbarrier.word);
  counts.pending += count;
  if (counts.pending > kMostCount) {
    fail(warp, "the pending count of the " + name_of(warp, place) + " is out of range");
  }
  set_word(warp, place, mbarrier, pack(counts));
}

u32 pending_arrivals(u64 state) { return static_cast<u32>(unpack(state).pending); }

u32 parity_of(u64 state) { return static_cast<u32>(state >> 63); }

bool test_phase(Warp& warp, MbarrierPlace place, u32 parity) {
  const Mbarrier& mbarrier = valid(warp, place);
  if (parity_of(mbarrier.word) == parity) return false;
  if (options().check && place.block == warp.block) join(warp.fences.known, mbarrier.completed);
  return true;
}

void fence_mbarrier_init(Warp& warp, u32 lanes) {
  for (auto& [offset, mbarrier] : warp.block->mbarriers.initialized) {
    if (mbarrier.warp == warp.id && (lanes >> mbarrier.lane & 1) != 0) mbarrier.init_fenced = true;
  }
}

}  // namespace ptxsim
