// Registers that warpgroups pass to each other (setmaxnreg).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "clocks.h"

namespace simt::engine {

class Engine;
struct Thread;

/// Counts a block's registers, per thread of a warpgroup. Blocks of at most 256 threads start with
/// what the compiler gave them, which is not known here: for them only the arguments are checked.
class RegisterPool {
 public:
  void start_block(const Engine& engine);

  /// `warp` has executed setmaxnreg; all four of its warpgroup must, with the same arguments.
  void set(Engine& engine, const Thread& thread, int registers, bool increase);

  /// Whether the warp's last call has taken effect: an increase waits for registers that others
  /// release.
  bool has_taken_effect(const Thread& thread) const;

 private:
  struct WarpgroupState {
    int registers = 0;  // Per thread; 0 if unknown.
    int wanted = 0;     // What the call that its warps are in asks for.
    bool increases = false;
    unsigned warps = 0;  // A bit for each warp that has made this call.
  };

  void apply(Engine& engine, const Thread& thread, WarpgroupState& group);
  void grant(Engine& engine);

  int free_ = 0;
  std::array<WarpgroupState, kMaxThreads / 128> warpgroups_{};
};

}  // namespace simt::engine
