// Proxy fences: see hopper_fences.h.
// SPDX-License-Identifier: Apache-2.0
#include "hopper_fences.h"

#include <simt/hopper.h>

#include <algorithm>
#include <string>
#include <utility>

#include "engine.h"
#include "hopper_units.h"

namespace simt::engine {

void ProxyFences::start_block(const Clocks& clocks) {
  first_stamp_ = clocks.floor_stamp();
  for (const int thread : fencing_) fences_[static_cast<std::size_t>(thread)].clear();
  fencing_.clear();
}

void ProxyFences::fence(Clocks& clocks, int thread) {
  std::vector<Fence>& fences = fences_[static_cast<std::size_t>(thread)];
  if (fences.empty()) fencing_.push_back(thread);
  fences.push_back({clocks.stamp(thread), clocks.view(thread)});
  clocks.advance(thread);  // The count distinguishes later accesses from earlier ones.
}

// The thread's first fence after the access is the one that is ordered before most.
bool ProxyFences::own_fence_covers(Stamp access, int actor, const Clocks& clocks) const {
  const std::vector<Fence>& fences = fences_[static_cast<std::size_t>(actor_of(access))];
  const auto first = std::partition_point(fences.begin(), fences.end(), [&](const Fence& fence) {
    return count_of(fence.stamp) < count_of(access);
  });
  return first != fences.end() && clocks.ordered(first->stamp, actor);
}

bool ProxyFences::any_fence_covers(Stamp access, int actor, const Clocks& clocks) const {
  return std::any_of(fencing_.begin(), fencing_.end(), [&](int thread) {
    const std::vector<Fence>& fences = fences_[static_cast<std::size_t>(thread)];
    const auto first = std::partition_point(fences.begin(), fences.end(), [&](const Fence& fence) {
      return fence.known.of(actor_of(access)) < count_of(access);
    });
    return first != fences.end() && clocks.ordered(first->stamp, actor);
  });
}

bool ProxyFences::covers_write(Stamp written, int actor, const Clocks& clocks) const {
  const int writer = actor_of(written);
  if (written < first_stamp_) return true;  // An earlier block wrote it, which is not checked here.
  if (writer == kThreadCopyAgent) return any_fence_covers(written, actor, clocks);
  return writer >= kMaxThreads || own_fence_covers(written, actor, clocks);
}

bool ProxyFences::covers_read(Stamp read, int actor, const Clocks& clocks) const {
  return read < first_stamp_ || own_fence_covers(read, actor, clocks) ||
         any_fence_covers(read, actor, clocks);
}

namespace {

/// Calls find(offset) for each of the bytes until it returns an access.
template <typename Find>
UnfencedAccess find_unfenced(Engine& engine, const void* shared, std::size_t size,
                             const Find& find) {
  const SharedMemory& memory = engine.shared();
  const std::size_t offset = memory.offset_of(shared);
  if (!engine.launch_options().check_races || offset > memory.bytes() ||
      size > memory.bytes() - offset) {
    return {};
  }
  UnfencedAccess found;
  for (std::size_t i = offset; i < offset + size && found.stamp == 0; ++i) found = find(i);
  return found;
}

}  // namespace

// An access that is not ordered before the copy at all is a race, which the race checker reports.

UnfencedAccess find_unfenced_write(Engine& engine, int actor, const void* shared,
                                   std::size_t size) {
  const ProxyFences& fences = HopperUnits::instance().fences;
  const Clocks& clocks = engine.clocks();
  Stamp seen = 0;
  return find_unfenced(engine, shared, size, [&](std::size_t offset) -> UnfencedAccess {
    const Stamp written = engine.shared().last_write(offset) & ~kAtomicBit;
    if (written == std::exchange(seen, written) || !clocks.ordered(written, actor) ||
        fences.covers_write(written, actor, clocks)) {
      return {};
    }
    return {.stamp = written, .offset = offset, .wrote = true};
  });
}

UnfencedAccess find_unfenced_read(Engine& engine, int actor, const void* shared, std::size_t size) {
  const ProxyFences& fences = HopperUnits::instance().fences;
  const Clocks& clocks = engine.clocks();
  std::array<Stamp, 2> seen{};
  return find_unfenced(engine, shared, size, [&](std::size_t offset) -> UnfencedAccess {
    const std::array<Stamp, 2> reads = engine.shared().thread_reads(offset);
    if (reads == std::exchange(seen, reads)) return {};
    for (const Stamp read : reads) {
      if (clocks.ordered(read, actor) && !fences.covers_read(read, actor, clocks)) {
        return {.stamp = read, .offset = offset, .wrote = false};
      }
    }
    return {};
  });
}

void report_unfenced(Engine& engine, const Thread& thread, const UnfencedAccess& access,
                     const char* what) {
  if (access.stamp == 0) return;
  const int actor = actor_of(access.stamp);
  engine.fail(thread, [&] {
    return std::string(what) + " shared memory at offset " + std::to_string(access.offset) +
           ", which " +
           (actor < kMaxThreads ? "thread " + std::to_string(actor) : std::string("a cp.async")) +
           (access.wrote ? " wrote" : " read") +
           " with no proxy fence (fence.proxy.async) in between";
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
