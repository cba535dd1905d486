// Proxy fences: see hopper_fences.h.
// SPDX-License-Identifier: Apache-2.0
#include "hopper_fences.h"

#include <simt/hopper.h>

#include <algorithm>

#include "engine.h"
#include "hopper_units.h"

namespace simt::engine {
namespace {

Stamp make_stamp(int actor, uint32_t count) {
  return (count << kCountShift) | static_cast<Stamp>(actor);
}

}  // namespace

void ProxyFences::start_block(const Clocks& clocks) {
  first_stamp_ = clocks.floor_stamp();
  for (const int thread : fencing_) counts_[static_cast<std::size_t>(thread)].clear();
  for (const int thread : fencing_) latest_[static_cast<std::size_t>(thread)] = {};
  fencing_.clear();
}

void ProxyFences::fence(Clocks& clocks, int thread) {
  std::vector<uint32_t>& counts = counts_[static_cast<std::size_t>(thread)];
  if (counts.empty()) fencing_.push_back(thread);
  const Stamp stamp = clocks.stamp(thread);
  counts.push_back(count_of(stamp));
  latest_[static_cast<std::size_t>(thread)] = {stamp, clocks.known_count(thread, kThreadCopyAgent)};
  clocks.advance(thread);  // Later writes are told from earlier ones by their count.
}

bool ProxyFences::covers(Stamp written, int actor, const Clocks& clocks) const {
  const int writer = actor_of(written);
  if (written < first_stamp_) return true;  // Of an earlier block: not this one's business.
  if (writer == kThreadCopyAgent) {
    return std::any_of(fencing_.begin(), fencing_.end(), [&](int thread) {
      const LatestFence& latest = latest_[static_cast<std::size_t>(thread)];
      return latest.known_copies >= count_of(written) && clocks.ordered(latest.stamp, actor);
    });
  }
  if (writer >= kMaxThreads) return true;  // An asynchronous write.
  const std::vector<uint32_t>& counts = counts_[static_cast<std::size_t>(writer)];
  const auto first = std::lower_bound(counts.begin(), counts.end(), count_of(written));
  return first != counts.end() && clocks.ordered(make_stamp(writer, *first), actor);
}

UnfencedWrite find_unfenced_write(Engine& engine, int actor, const void* shared, std::size_t size) {
  const SharedMemory& memory = engine.shared();
  const std::size_t offset = memory.offset_of(shared);
  if (!engine.launch_options().check_races || offset > memory.bytes() ||
      size > memory.bytes() - offset) {
    return {};
  }
  const ProxyFences& fences = HopperUnits::instance().fences;
  Stamp seen = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const Stamp written = memory.last_write(offset + i) & ~kAtomicBit;
    if (written == seen) continue;
    seen = written;
    // A write that is not ordered before the access at all is a race, for others to report.
    if (engine.clocks().ordered(written, actor) &&
        !fences.covers(written, actor, engine.clocks())) {
      return {written, offset + i};
    }
  }
  return {};
}

void report_unfenced_write(Engine& engine, const Thread& thread, const UnfencedWrite& write,
                           const char* what) {
  if (write.written == 0) return;
  const int writer = actor_of(write.written);
  engine.fail(thread, [&] {
    return std::string(what) + " shared memory at offset " + std::to_string(write.offset) +
           ", which " +
           (writer < kMaxThreads ? "thread " + std::to_string(writer) : std::string("a cp.async")) +
           " wrote with no proxy fence (fence.proxy.async) in between";
  });
}

}  // namespace simt::engine

void simt::fence_proxy_async() {
  engine::LibraryCall call;
  engine::HopperUnits& units = engine::HopperUnits::instance();
  units.mbarriers.fence_init(call.engine().clocks(), call.thread().id);
  units.fences.fence(call.engine().clocks(), call.thread().id);
  call.engine().maybe_yield();
}
