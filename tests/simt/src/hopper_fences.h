// Proxy fences: decides which ordinary accesses to shared memory are visible to bulk copies and
// wgmma.
//
// A write counts as visible to them if its thread has executed fence.proxy.async since, and that
// fence is ordered before the copy or the product. Kernels are told to do this (CUDA's programming
// guide: every writer fences, then a barrier); the memory model would also let a reader fence.
// Bytes of a cp.async that arrives at an mbarrier by itself have no thread that could fence after
// the write: for them a fence of whoever has waited for the mbarrier counts.
//
// A read counts as complete before a bulk copy overwrites the bytes if a fence comes after the read
// and before the copy. The fence may be of the reading thread, or of another thread that the read
// is ordered before, such as the one that starts the copy. Guides say less about reads than about
// writes, so here the memory model decides (PTX ISA, "Causality order": a proxy fence along the
// way).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "clocks.h"

namespace simt::engine {

class ProxyFences {
 public:
  void start_block(const Clocks& clocks);

  void fence(Clocks& clocks, int thread);

  /// Whether the last write of a byte, with this stamp, is visible to what `actor` does now.
  bool covers_write(Stamp written, int actor, const Clocks& clocks) const;

  /// Whether a read of a byte, with this stamp, is complete before what `actor` does now.
  bool covers_read(Stamp read, int actor, const Clocks& clocks) const;

 private:
  struct Fence {
    Stamp stamp = 0;
    View known;  // To the fencing thread.
  };

  /// Whether the thread that made the access has a fence after it that is ordered before `actor`.
  bool own_fence_covers(Stamp access, int actor, const Clocks& clocks) const;
  /// Whether any thread that knew of the access has one.
  bool any_fence_covers(Stamp access, int actor, const Clocks& clocks) const;

  Stamp first_stamp_ = 0;                               // The block's first.
  std::array<std::vector<Fence>, kMaxThreads> fences_;  // Per thread, in its order.
  std::vector<int> fencing_;                            // Threads that have fenced.
};

}  // namespace simt::engine
