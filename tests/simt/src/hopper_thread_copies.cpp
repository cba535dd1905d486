// cp.async.mbarrier.arrive: when a thread's copies so far have landed, an arrival follows by
// itself. From then on only the mbarrier can be waited for.
// SPDX-License-Identifier: Apache-2.0
#include <simt/hopper.h>

#include <cstring>

#include "engine.h"
#include "hopper_units.h"

namespace simt {
namespace {

using engine::Access;
using engine::Engine;
using engine::HopperUnits;
using engine::kThreadCopyAgent;
using engine::LibraryCall;
using engine::MbarrierState;
using engine::Thread;
using engine::ThreadArrival;
using engine::ThreadCopy;

void land(Engine& engine, const Thread& thread, const ThreadCopy& copy) {
  const auto source_bytes = static_cast<std::size_t>(copy.source_bytes);
  if (!copy.landed) {
    if (source_bytes > 0) {
      engine.check_access(thread, copy.from, source_bytes, Access::kRead);
      std::memcpy(copy.to, copy.from, source_bytes);
    }
    std::memset(copy.to + source_bytes, 0, static_cast<std::size_t>(copy.bytes) - source_bytes);
  }
  engine.finish_write(kThreadCopyAgent, copy.to, static_cast<std::size_t>(copy.bytes));
}

}  // namespace

void cp_async_mbarrier_arrive_noinc(void* barrier) {
  LibraryCall call;
  Engine& engine = call.engine();
  const Thread& thread = call.thread();
  engine.maybe_yield();
  MbarrierState& state = HopperUnits::instance().mbarriers.at(engine, thread, barrier);
  ThreadArrival& arrival = HopperUnits::instance().thread_arrivals.emplace_back();
  arrival.copies.swap(call.thread().copies);
  call.thread().copy_groups.clear();
  const auto complete = [&engine, &thread, &state, &arrival] {
    for (const ThreadCopy& copy : arrival.copies) land(engine, thread, copy);
    arrival.copies = {};
    arrival.landed = true;
    std::erase(state.operations, arrival.operation);
    HopperUnits::instance().mbarriers.arrive_by(engine, state, kThreadCopyAgent);
  };
  const uint64_t operation = engine.start_async({complete, "a cp.async", thread.id});
  if (arrival.landed) return;
  arrival.operation = operation;
  state.operations.push_back(operation);
}

}  // namespace simt
