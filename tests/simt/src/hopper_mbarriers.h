// mbarriers of the running block. What they count is kept here; their eight bytes in shared memory
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
  int arrivals = 0;         // Of each phase.
  int pending = 0;          // Of them, not yet made in the current phase.
  int64_t outstanding = 0;  // Bytes announced less bytes landed; negative if these came first.
  uint32_t phase = 0;       // The current one.
  Stamp initialized = 0;
  Knowledge arriving;                // What the current phase's arrivals pass on,
  Knowledge completed;               // and those of the phases before.
  int waiting = 0;                   // Threads.
  std::vector<uint64_t> operations;  // Asynchronous ones that will arrive or land here.
  uint64_t polls = 0;                // test_wait in vain, since one of them was completed.

  /// "an mbarrier at shared offset 64 (phase 3: 1 of 2 arrivals missing, 512 bytes outstanding)".
  std::string describe() const;
};

class Mbarriers {
 public:
  void start_block();

  void init(Engine& engine, Thread& thread, void* pointer, int arrivals);
  void inval(Engine& engine, Thread& thread, void* pointer);

  /// `thread` executes a fence: the inits it made become visible to bulk copies. The caller counts
  /// the thread's clock on.
  void fence_init(const Clocks& clocks, int thread);

  /// The barrier at `pointer`; a violation if there is none, or `thread` may not rely on its init.
  MbarrierState& at(Engine& engine, const Thread& thread, const void* pointer);

  /// The same for an instruction by which a bulk copy will report to it.
  MbarrierState& at_for_copy(Engine& engine, const Thread& thread, const void* pointer);

  void arrive(Engine& engine, const Thread& thread, MbarrierState& barrier);
  void expect(Engine& engine, const Thread& thread, MbarrierState& barrier, uint32_t bytes);

  /// `bytes` have landed, written by `agent`.
  void land(Engine& engine, MbarrierState& barrier, int agent, uint32_t bytes);

  /// An arrival by `agent`, for a thread's cp.async.
  void arrive_by(Engine& engine, MbarrierState& barrier, int agent);

  /// Whether the latest phase of this parity is complete: the current one has the other parity.
  static bool is_complete(const MbarrierState& barrier, uint32_t parity) {
    return barrier.phase % 2 != parity;
  }

  /// A thread was not let through and will ask again: others run first, and what lands at the
  /// barrier lands at last.
  void poll(Engine& engine, MbarrierState& barrier);

 private:
  void finish_phase(Engine& engine, MbarrierState& barrier);

  std::unordered_map<std::size_t, MbarrierState> barriers_;  // By offset.
  std::unordered_map<std::size_t, Stamp> fenced_;  // Of the fence that made the init visible.
};

}  // namespace simt::engine
