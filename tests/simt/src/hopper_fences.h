// Proxy fences: which ordinary writes to shared memory bulk copies and wgmma may rely on.
//
// A write counts as visible to them if its thread has executed fence.proxy.async since, and that
// fence is ordered before the copy or the product. This is what kernels are told to do (CUDA's
// programming guide: every writer fences, then a barrier); the memory model would also let a reader
// fence. Bytes of a cp.async that arrives at an mbarrier by itself have no thread that could fence
// after writing: for them a fence of whoever has waited for the mbarrier counts.
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
  bool covers(Stamp written, int actor, const Clocks& clocks) const;

 private:
  /// The latest fence of a thread, and the last count of cp.async's agent that it knew of.
  struct LatestFence {
    Stamp stamp = 0;
    uint32_t known_copies = 0;
  };

  Stamp first_stamp_ = 0;                                  // Of this block.
  std::array<std::vector<uint32_t>, kMaxThreads> counts_;  // Of each thread's fences, ascending.
  std::array<LatestFence, kMaxThreads> latest_{};
  std::vector<int> fencing_;  // Threads that have fenced.
};

}  // namespace simt::engine
