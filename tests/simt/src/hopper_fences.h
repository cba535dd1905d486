// Proxy fences: which ordinary accesses to shared memory bulk copies and wgmma may rely on having
// been made.
//
// A write counts as visible to them if its thread has executed fence.proxy.async since, and that
// fence is ordered before the copy or the product. This is what kernels are told to do (CUDA's
// programming guide: every writer fences, then a barrier); the memory model would also let a reader
// fence. Bytes of a cp.async that arrives at an mbarrier by itself have no thread that could fence
// after writing: for them a fence of whoever has waited for the mbarrier counts.
//
// A read counts as made before a bulk copy overwrites the bytes if there is a fence that comes
// after the read and before the copy: of the reading thread, or of another that the read is ordered
// before, such as the one that starts the copy. What guides say of reads is less than of writes, so
// here the memory model decides (PTX ISA, "Causality order": a proxy fence along the way).
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

  /// Is the last write of a byte, with this stamp, visible to what `actor` does now?
  bool covers_write(Stamp written, int actor, const Clocks& clocks) const;

  /// Is a read of a byte, with this stamp, over for what `actor` does now?
  bool covers_read(Stamp read, int actor, const Clocks& clocks) const;

 private:
  struct Fence {
    Stamp stamp = 0;
    View known;  // To its thread.
  };

  /// Is there a fence of the thread that made the access, after it and ordered before `actor`?
  bool own_fence_covers(Stamp access, int actor, const Clocks& clocks) const;
  /// Is there one of any thread that knew of the access?
  bool any_fence_covers(Stamp access, int actor, const Clocks& clocks) const;

  Stamp first_stamp_ = 0;                               // Of this block.
  std::array<std::vector<Fence>, kMaxThreads> fences_;  // Of each thread, in their order.
  std::vector<int> fencing_;                            // Threads that have fenced.
};

}  // namespace simt::engine
