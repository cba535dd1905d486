// Block barriers: see barriers.h.
// SPDX-License-Identifier: Apache-2.0
#include "barriers.h"

#include "engine.h"

namespace simt::engine {
namespace {

const char* name_of(BarrierVote vote) {
  switch (vote) {
    case BarrierVote::kNone:
      return "__syncthreads()";
    case BarrierVote::kCount:
      return "__syncthreads_count()";
    case BarrierVote::kAnd:
      return "__syncthreads_and()";
    case BarrierVote::kOr:
      return "__syncthreads_or()";
  }
  return "";
}

std::string barrier_name(int id, BarrierVote vote) {
  return id == 0 ? name_of(vote) : "named barrier " + std::to_string(id);
}

}  // namespace

void BlockBarriers::start_block() {
  for (Barrier& barrier : barriers_) {
    barrier.num_arrived = 0;
    barrier.num_true = 0;
    barrier.waiting.clear();
    barrier.arrived_only.clear();
    barrier.arrivals.clear();
  }
}

int BlockBarriers::arrive(Engine& engine, Thread& thread, int id, int threads, BarrierVote vote,
                          bool predicate, bool arrive_only) {
  engine.maybe_yield();
  Barrier& barrier = barriers_[static_cast<std::size_t>(id)];
  check_arrival(engine, thread, barrier, id, threads, vote);
  if (barrier.num_arrived == 0) {
    barrier.threads = threads;
    barrier.vote = vote;
  }
  ++barrier.num_arrived;
  barrier.num_true += predicate ? 1 : 0;
  if (arrive_only) {
    barrier.arrived_only.push_back(thread.id);
    engine.clocks().release(thread.id, barrier.arrivals);
  } else {
    barrier.waiting.push_back(thread.id);
    thread.barrier = id;
  }
  if (complete(engine, barrier)) {
    release(engine, barrier, id);  // Queues this thread too, if it waits.
  }
  if (!arrive_only) engine.sleep();
  return thread.barrier_result;
}

void BlockBarriers::check_arrival(Engine& engine, const Thread& thread, const Barrier& barrier,
                                  int id, int threads, BarrierVote vote) {
  if (barrier.num_arrived == 0) return;
  if (barrier.vote != vote) {
    engine.fail(thread, [&] {
      return "is at " + barrier_name(id, vote) + " while others wait at " +
             barrier_name(id, barrier.vote);
    });
  }
  if (barrier.threads != threads) {
    engine.fail(thread, [&] {
      return "is at " + barrier_name(id, vote) + " for " + std::to_string(threads) +
             " threads, where others wait for " + std::to_string(barrier.threads);
    });
  }
}

bool BlockBarriers::complete(const Engine& engine, const Barrier& barrier) const {
  const int expected = barrier.threads == kAllThreads ? engine.num_live() : barrier.threads;
  return barrier.num_arrived > 0 && barrier.num_arrived >= expected;
}

// Aligned barriers count warps: a warp that arrives in parts is counted more than once. Lanes may
// have exited since they arrived.
void BlockBarriers::check_whole_warps(Engine& engine, const Barrier& barrier, int id) {
  std::array<uint32_t, kMaxThreads / 32> lanes{};
  for (const std::vector<int>* threads : {&barrier.waiting, &barrier.arrived_only}) {
    for (int thread : *threads) lanes[static_cast<std::size_t>(thread / 32)] |= 1u << (thread % 32);
  }
  for (std::size_t warp = 0; warp < lanes.size(); ++warp) {
    if (lanes[warp] == 0) continue;
    const Thread& thread = engine.thread_at(static_cast<int>(warp) * 32);
    const uint32_t live = engine.warp_of(thread).live_lanes();
    if ((live & ~lanes[warp]) != 0) {
      engine.fail(engine.current(), [&] {
        return "completes " + barrier_name(id, barrier.vote) + " with only " +
               lanes_text(lanes[warp]) + " of warp " + std::to_string(warp) +
               ": whole warps must arrive";
      });
    }
  }
}

void BlockBarriers::release(Engine& engine, Barrier& barrier, int id) {
  if (barrier.threads != kAllThreads) check_whole_warps(engine, barrier, id);
  const bool whole_block = static_cast<int>(barrier.waiting.size()) == engine.num_live();
  Clocks& clocks = engine.clocks();
  if (whole_block) {
    clocks.order_all();
  } else if (!barrier.waiting.empty()) {
    for (int thread : barrier.waiting) clocks.acquire(thread, barrier.arrivals);
    clocks.meet(barrier.waiting.data(), barrier.waiting.size());
  }
  int result = barrier.num_true;
  if (barrier.vote == BarrierVote::kAnd) result = barrier.num_true == barrier.num_arrived ? 1 : 0;
  if (barrier.vote == BarrierVote::kOr) result = barrier.num_true > 0 ? 1 : 0;
  for (int waiting : barrier.waiting) {
    Thread& thread = engine.thread_at(waiting);
    thread.barrier = -1;
    thread.barrier_result = result;
    engine.wake(thread);
  }
  barrier.num_arrived = 0;
  barrier.num_true = 0;
  barrier.waiting.clear();
  barrier.arrived_only.clear();
  barrier.arrivals.clear();
}

void BlockBarriers::thread_exited(Engine& engine) {
  for (std::size_t id = 0; id < barriers_.size(); ++id) {
    Barrier& barrier = barriers_[id];
    if (barrier.threads == kAllThreads && complete(engine, barrier)) {
      release(engine, barrier, static_cast<int>(id));
    }
  }
}

std::string BlockBarriers::describe(const Engine& engine, int id) const {
  const Barrier& barrier = barriers_[static_cast<std::size_t>(id)];
  const int expected = barrier.threads == kAllThreads ? engine.num_live() : barrier.threads;
  return barrier_name(id, barrier.vote) + " (" + std::to_string(barrier.num_arrived) + " of " +
         std::to_string(expected) + " threads have arrived)";
}

}  // namespace simt::engine
