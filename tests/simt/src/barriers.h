// The block's 16 barriers: __syncthreads() is barrier 0, for all threads that have not exited.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <simt/device.h>

#include <array>
#include <string>
#include <vector>

#include "clocks.h"

namespace simt::engine {

class Engine;
struct Thread;

class BlockBarriers {
 public:
  static constexpr int kNumBarriers = 16;
  static constexpr int kAllThreads = 0;  // Takes the place of a number of threads.

  void start_block();

  /// Arrives; unless `arrive_only`, waits until the barrier is complete. Returns the vote.
  int arrive(Engine& engine, Thread& thread, int id, int threads, BarrierVote vote, bool predicate,
             bool arrive_only);

  /// A thread has exited: barriers that wait for all threads may now be complete.
  void thread_exited(Engine& engine);

  /// "at barrier 1 (32 of 64 threads have arrived)".
  std::string describe(const Engine& engine, int id) const;

 private:
  struct Barrier {
    int threads = 0;  // As the first thread to arrive specified.
    BarrierVote vote = BarrierVote::kNone;
    int num_arrived = 0;
    int num_true = 0;
    std::vector<int> waiting;       // Threads.
    std::vector<int> arrived_only;  // Threads that did not wait.
    Knowledge arrivals;             // What those knew when they arrived.
  };

  void check_arrival(Engine& engine, const Thread& thread, const Barrier& barrier, int id,
                     int threads, BarrierVote vote);
  bool complete(const Engine& engine, const Barrier& barrier) const;
  void release(Engine& engine, Barrier& barrier, int id);
  void check_whole_warps(Engine& engine, const Barrier& barrier, int id);

  std::array<Barrier, kNumBarriers> barriers_;
};

}  // namespace simt::engine
