// What the instructions of sm_90 keep of a block beside its threads: mbarriers, bulk copies under way,
// wgmma under way, proxy fences, registers to hand out.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "engine.h"
#include "hopper_fences.h"
#include "hopper_mbarriers.h"
#include "hopper_products.h"
#include "hopper_registers.h"
#include "hopper_bulk_copies.h"

namespace simt::engine {

/// An arrival of a thread's cp.async copies.
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

/// Actors of units that are always the same (clocks.h, kNumReservedAgents).
inline constexpr int kFirstWarpgroupAgent = kMaxThreads + kNumAgents;
inline constexpr int kNumWarpgroups = kMaxThreads / 128;
inline constexpr int kThreadCopyAgent = kFirstWarpgroupAgent + kNumWarpgroups;
static_assert(kThreadCopyAgent < kMaxActors);

/// A violation by `thread` unless ordinary writes to these bytes are behind a proxy fence before
/// `actor`, an asynchronous unit, touches them now. Bounds and races are others' to report.
void check_proxies(Engine& engine, const Thread& thread, int actor, const void* shared,
                   std::size_t size, const char* what);

}  // namespace simt::engine
