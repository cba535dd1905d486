// mbarriers of the running block. Their counts are kept here; their eight bytes in shared memory
// are off limits to all other accesses between init and inval.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "clocks.h"

namespace simt::engine {

class Engine;
struct Thread;

struct MbarrierState {
  std::size_t offset = 0;
  int arrivals = 0;         // Per phase.
  int pending = 0;          // Arrivals still missing in the current phase.
  int64_t outstanding = 0;  // Bytes announced minus bytes landed; negative if these came first.
  uint32_t phase = 0;       // The current one.
  Stamp initialized = 0;
  Knowledge arriving;                // What the current phase's arrivals pass on,
  Knowledge completed;               // and those of the phases before.
  int waiting = 0;                   // Threads.
  std::vector<uint64_t> operations;  // Asynchronous operations that will arrive or land here.
  uint64_t polls = 0;                // Failed test_waits since one of them was completed.

  /// "an mbarrier at shared offset 64 (phase 3: 1 of 2 arrivals missing, 512 bytes outstanding)".
  std::string describe() const;
};

class Mbarriers {
 public:
  void start_block();

  void init(Engine& engine, Thread& thread, void* pointer, int arrivals);
  void inval(Engine& engine, Thread& thread, void* pointer);

  /// `thread` executes a fence: its inits become visible to bulk copies. The caller advances the
  /// thread's clock.
  void fence_init(const Clocks& clocks, int thread);

  /// The barrier at `pointer`. Violation if there is none, or if `thread` may not rely on its init.
  MbarrierState& at(Engine& engine, const Thread& thread, const void* pointer);

  /// The same for an instruction whose bulk copy will report to the barrier.
  MbarrierState& at_for_copy(Engine& engine, const Thread& thread, const void* pointer);

  void arrive(Engine& engine, const Thread& thread, MbarrierState& barrier);
  void expect(Engine& engine, const Thread& thread, MbarrierState& barrier, uint32_t bytes);

  /// `bytes` have landed, written by `agent`.
  void land(Engine& engine, MbarrierState& barrier, int agent, uint32_t bytes);

  /// An arrival by `agent`, for a thread's cp.async.
  void arrive_by(Engine& engine, MbarrierState& barrier, int agent);

  /// Whether the latest phase of this parity is complete: the current phase has the other parity.
  static bool is_complete(const MbarrierState& barrier, uint32_t parity) {
    return barrier.phase % 2 != parity;
  }

  /// A thread was not let through and will ask again. Others run first, and in the end what is to
  /// land at the barrier lands.
  void poll(Engine& engine, MbarrierState& barrier);

 private:
  void finish_phase(Engine& engine, MbarrierState& barrier);

  std::unordered_map<std::size_t, MbarrierState> barriers_;  // By offset.
  std::unordered_map<std::size_t, Stamp> fenced_;            // By offset: the fence of the init.
};

}  // namespace simt::engine
