// What the instructions of sm_90 keep per block beside its threads: mbarriers, bulk copies and
// wgmma in flight, proxy fences, registers to hand out.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "engine.h"
#include "hopper_bulk_copies.h"
#include "hopper_fences.h"
#include "hopper_mbarriers.h"
#include "hopper_products.h"
#include "hopper_registers.h"

namespace simt::engine {

/// The arrival behind a thread's cp.async copies.
struct ThreadArrival {
  std::vector<ThreadCopy> copies;
  uint64_t operation = 0;
  bool landed = false;
};

struct HopperUnits {
  static HopperUnits& instance();

  ProxyFences fences;
  Mbarriers mbarriers;
  BulkCopies bulk_copies;
  Products products;
  RegisterPool registers;
  std::deque<ThreadArrival> thread_arrivals;
};

/// Agents of units that each have one of their own (clocks.h, kNumReservedAgents).
inline constexpr int kFirstWarpgroupAgent = kMaxThreads + kNumAgents;
inline constexpr int kNumWarpgroups = kMaxThreads / 128;
inline constexpr int kThreadCopyAgent = kFirstWarpgroupAgent + kNumWarpgroups;
static_assert(kThreadCopyAgent < kMaxActors);

/// An ordinary access to these bytes that is ordered before what `actor`, an asynchronous unit,
/// does now, but not behind a proxy fence; stamp 0 if there is none. Must be searched before the
/// unit's own access is checked and recorded, and reported after.
struct UnfencedAccess {
  Stamp stamp = 0;
  std::size_t offset = 0;
  bool wrote = false;
};
UnfencedAccess find_unfenced_write(Engine& engine, int actor, const void* shared, std::size_t size);
/// Concerns operations that overwrite the bytes.
UnfencedAccess find_unfenced_read(Engine& engine, int actor, const void* shared, std::size_t size);
void report_unfenced(Engine& engine, const Thread& thread, const UnfencedAccess& access,
                     const char* what);

}  // namespace simt::engine
