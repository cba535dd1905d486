// mbarriers: see hopper_mbarriers.h.
// SPDX-License-Identifier: Apache-2.0
#include "hopper_mbarriers.h"

#include <simt/hopper.h>

#include <algorithm>

#include "engine.h"
#include "hopper_units.h"

namespace simt::engine {
namespace {

constexpr int kMaxArrivals = (1 << 20) - 1;
constexpr int64_t kMaxOutstanding = (1 << 20) - 1;
constexpr std::size_t kBytes = 8;
constexpr uint64_t kMaxPolls = 2000;  // Failed polls before something is completed for them.

}  // namespace

std::string MbarrierState::describe() const {
  return "an mbarrier at shared offset " + std::to_string(offset) + " (phase " +
         std::to_string(phase) + ": " + std::to_string(pending) + " of " +
         std::to_string(arrivals) + " arrivals missing, " + std::to_string(outstanding) +
         " bytes outstanding)";
}

void Mbarriers::start_block() {
  barriers_.clear();
  fenced_.clear();
}

void Mbarriers::init(Engine& engine, Thread& thread, void* pointer, int arrivals) {
  if (arrivals < 1 || arrivals > kMaxArrivals) {
    engine.fail(thread, [&] {
      return "initialises an mbarrier with " + std::to_string(arrivals) +
             " arrivals: 1 to 1048575 are possible";
    });
  }
  if (!engine.shared().contains(pointer) || reinterpret_cast<uintptr_t>(pointer) % kBytes != 0) {
    engine.fail(thread, "initialises an mbarrier outside shared memory or not 8-byte aligned");
  }
  const std::size_t offset = engine.shared().offset_of(pointer);
  if (barriers_.count(offset) != 0) {
    engine.fail(thread, [&] {
      return "initialises " + barriers_[offset].describe() + " that is in use: inval comes first";
    });
  }
  engine.check_access(thread, pointer, kBytes, Access::kWrite);
  engine.shared().reserve(offset, kBytes);
  MbarrierState& barrier = barriers_[offset];
  barrier.offset = offset;
  barrier.arrivals = arrivals;
  barrier.pending = arrivals;
  barrier.initialized = engine.clocks().stamp(thread.id);
}

void Mbarriers::inval(Engine& engine, Thread& thread, void* pointer) {
  const MbarrierState& barrier = at(engine, thread, pointer);
  if (!barrier.operations.empty() || barrier.waiting > 0) {
    engine.fail(thread, [&] {
      return "invalidates " + barrier.describe() +
             ", for which threads wait or copies are under way";
    });
  }
  const std::size_t offset = barrier.offset;
  barriers_.erase(offset);
  fenced_.erase(offset);
  engine.shared().release(offset, kBytes);
}

void Mbarriers::fence_init(const Clocks& clocks, int thread) {
  for (const auto& [offset, barrier] : barriers_) {
    if (actor_of(barrier.initialized) == thread) fenced_.try_emplace(offset, clocks.stamp(thread));
  }
}

MbarrierState& Mbarriers::at(Engine& engine, const Thread& thread, const void* pointer) {
  const bool shared = engine.shared().contains(pointer);
  const auto found = shared ? barriers_.find(engine.shared().offset_of(pointer)) : barriers_.end();
  if (found == barriers_.end()) {
    engine.fail(thread, [&] {
      return "uses an mbarrier at " +
             (shared ? "shared offset " + std::to_string(engine.shared().offset_of(pointer))
                     : std::string("an address that is not shared")) +
             " that was not initialised";
    });
  }
  MbarrierState& barrier = found->second;
  if (engine.launch_options().check_races &&
      !engine.clocks().ordered(barrier.initialized, thread.id)) {
    engine.fail(thread, [&] {
      return "uses " + barrier.describe() + ", and nothing orders that after its init by thread " +
             std::to_string(actor_of(barrier.initialized));
    });
  }
  return barrier;
}

MbarrierState& Mbarriers::at_for_copy(Engine& engine, const Thread& thread, const void* pointer) {
  MbarrierState& barrier = at(engine, thread, pointer);
  const auto fence = fenced_.find(barrier.offset);
  if (engine.launch_options().check_races &&
      (fence == fenced_.end() || !engine.clocks().ordered(fence->second, thread.id))) {
    engine.fail(thread, [&] {
      return "starts a bulk copy that reports to " + barrier.describe() +
             ", whose init has not been fenced (fence.mbarrier_init)";
    });
  }
  return barrier;
}

void Mbarriers::arrive(Engine& engine, const Thread& thread, MbarrierState& barrier) {
  if (barrier.pending == 0) {
    engine.fail(thread, [&] { return "arrives once too often at " + barrier.describe(); });
  }
  engine.clocks().release(thread.id, barrier.arriving);
  --barrier.pending;
  finish_phase(engine, barrier);
}

void Mbarriers::arrive_by(Engine& engine, MbarrierState& barrier, int agent) {
  if (barrier.pending == 0) {
    engine.fail(engine.current(),
                [&] { return "a cp.async arrives once too often at " + barrier.describe(); });
  }
  barrier.arriving.learn(agent, count_of(engine.clocks().stamp(agent)));
  engine.clocks().advance(agent);
  --barrier.pending;
  finish_phase(engine, barrier);
}

void Mbarriers::expect(Engine& engine, const Thread& thread, MbarrierState& barrier,
                       uint32_t bytes) {
  barrier.outstanding += bytes;
  if (bytes > kMaxOutstanding || barrier.outstanding > kMaxOutstanding) {
    engine.fail(thread, [&] {
      return "announces " + std::to_string(bytes) + " bytes to " + barrier.describe() +
             ": it counts to 1048575";
    });
  }
}

void Mbarriers::land(Engine& engine, MbarrierState& barrier, int agent, uint32_t bytes) {
  barrier.arriving.learn(agent, count_of(engine.clocks().stamp(agent)));
  engine.clocks().advance(agent);
  barrier.outstanding -= bytes;
  barrier.polls = 0;
  finish_phase(engine, barrier);
}

void Mbarriers::finish_phase(Engine& engine, MbarrierState& barrier) {
  if (barrier.pending != 0 || barrier.outstanding != 0) return;
  barrier.completed.learn(barrier.arriving);
  barrier.arriving.clear();
  barrier.pending = barrier.arrivals;
  ++barrier.phase;
  engine.notify();
  engine.note_progress();
}

void Mbarriers::poll(Engine& engine, MbarrierState& barrier) {
  engine.yield();
  if (++barrier.polls < kMaxPolls || barrier.operations.empty()) return;
  barrier.polls = 0;
  engine.complete_async(barrier.operations.front());
}

}  // namespace simt::engine

namespace simt {
namespace {

using engine::Engine;
using engine::HopperUnits;
using engine::LibraryCall;
using engine::Mbarriers;
using engine::MbarrierState;
using engine::Thread;

Mbarriers& mbarriers() { return HopperUnits::instance().mbarriers; }

void check_parity(Engine& engine, const Thread& thread, uint32_t parity) {
  if (parity > 1) {
    engine.fail(thread, [&] { return "waits for parity " + std::to_string(parity); });
  }
}

}  // namespace

void mbarrier_init(void* barrier, int arrivals) {
  LibraryCall call;
  mbarriers().init(call.engine(), call.thread(), barrier, arrivals);
}

void mbarrier_inval(void* barrier) {
  LibraryCall call;
  mbarriers().inval(call.engine(), call.thread(), barrier);
}

void fence_mbarrier_init() {
  LibraryCall call;
  mbarriers().fence_init(call.engine().clocks(), call.thread().id);
  call.engine().clocks().advance(call.thread().id);
}

void mbarrier_arrive(void* barrier) {
  LibraryCall call;
  Engine& engine = call.engine();
  engine.maybe_yield();
  mbarriers().arrive(engine, call.thread(), mbarriers().at(engine, call.thread(), barrier));
}

void mbarrier_expect_tx(void* barrier, uint32_t bytes) {
  LibraryCall call;
  Engine& engine = call.engine();
  mbarriers().expect(engine, call.thread(), mbarriers().at(engine, call.thread(), barrier), bytes);
}

void mbarrier_arrive_expect_tx(void* barrier, uint32_t bytes) {
  LibraryCall call;
  Engine& engine = call.engine();
  engine.maybe_yield();
  MbarrierState& state = mbarriers().at(engine, call.thread(), barrier);
  mbarriers().expect(engine, call.thread(), state, bytes);
  mbarriers().arrive(engine, call.thread(), state);
}

bool mbarrier_test_wait(const void* barrier, uint32_t parity) {
  LibraryCall call;
  Engine& engine = call.engine();
  check_parity(engine, call.thread(), parity);
  engine.maybe_yield();
  MbarrierState& state = mbarriers().at(engine, call.thread(), barrier);
  if (!Mbarriers::is_complete(state, parity)) {
    mbarriers().poll(engine, state);
    return false;
  }
  engine.clocks().acquire(call.thread().id, state.completed);
  return true;
}

bool mbarrier_try_wait(const void* barrier, uint32_t parity) {
  LibraryCall call;
  Engine& engine = call.engine();
  check_parity(engine, call.thread(), parity);
  MbarrierState* state = &mbarriers().at(engine, call.thread(), barrier);
  ++state->waiting;
  engine.block_until([state, parity] { return Mbarriers::is_complete(*state, parity); },
                     {.describe = [state, parity] {
                       return "parity " + std::to_string(parity) + " of " + state->describe();
                     }});
  --state->waiting;
  engine.clocks().acquire(call.thread().id, state->completed);
  return true;
}

}  // namespace simt
