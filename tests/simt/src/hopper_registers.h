// Registers that warpgroups hand each other (setmaxnreg).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "clocks.h"

namespace simt::engine {

class Engine;
struct Thread;

/// Counts a block's registers, per thread of a warpgroup. Blocks of at most 256 threads begin with
/// what the compiler gave them, which nobody here knows: for them only the arguments are checked.
class RegisterPool {
 public:
  void start_block(const Engine& engine);

  /// `warp` has executed setmaxnreg; all four of its warpgroup must, with the same arguments.
  void set(Engine& engine, const Thread& thread, int registers, bool increase);

  /// Whether the call that the thread's warp made last has taken effect: an increase waits for
  /// registers that others give back.
  bool has_taken_effect(const Thread& thread) const;

 private:
  struct WarpgroupState {
    int registers = 0;  // Per thread; 0 if unknown.
    int wanted = 0;     // Of the call that its warps are in.
    bool increases = false;
    unsigned warps = 0;  // That have made this call; a bit each.
  };

  void apply(Engine& engine, const Thread& thread, WarpgroupState& group);
  void grant(Engine& engine);

  int free_ = 0;
  std::array<WarpgroupState, kMaxThreads / 128> warpgroups_{};
};

}  // namespace simt::engine
