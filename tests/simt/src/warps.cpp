// Warp collectives: see warps.h.
// SPDX-License-Identifier: Apache-2.0
#include "warps.h"

#include <cstdio>

#include "engine.h"

namespace simt::engine {
namespace {

std::string call_text(const char* name, uint32_t mask) {
  std::array<char, 16> digits;
  std::snprintf(digits.data(), digits.size(), "0x%08x", mask);
  return std::string(name) + " with mask " + digits.data();
}

}  // namespace

void Warp::start_block(int warp, uint32_t lanes) {
  warp_ = warp;
  live_ = lanes;
  pending_.clear();
}

Thread& Warp::lane_thread(Engine& engine, int lane) const {
  return engine.thread_at(warp_ * 32 + lane);
}

void Warp::check_mask(Engine& engine, const Thread& thread, const char* name, uint32_t mask,
                      bool aligned) {
  if ((mask >> thread.lane & 1) == 0) {
    engine.fail(thread, [&] {
      return "calls " + call_text(name, mask) + ", in which its own lane " +
             std::to_string(thread.lane) + " is not";
    });
  }
  if (aligned && live_ != kAllLanes) {
    engine.fail(thread, [&] {
      return std::string("executes ") + name + ", which needs all 32 lanes, but only " +
             lanes_text(live_) + " of warp " + std::to_string(warp_) + " run";
    });
  }
}

// Two lanes that wait for each other in different collectives will never meet.
void Warp::check_conflicts(Engine& engine, const Thread& thread, const char* name, uint32_t mask) {
  for (const Pending& other : pending_) {
    const Collective& collective = other.collective;
    const uint32_t waiting = collective.arrived & mask;
    if ((collective.mask >> thread.lane & 1) == 0 || waiting == 0) continue;
    engine.fail(thread, [&] {
      return "calls " + call_text(name, mask) + ", while " + lanes_text(waiting) +
             " of its warp wait for it in " + call_text(collective.name, collective.mask);
    });
  }
}

void Warp::meet(Engine& engine, Thread& thread, const char* name, uint32_t mask, bool aligned,
                void* item, Work work) {
  engine.maybe_yield();
  check_mask(engine, thread, name, mask, aligned);
  std::size_t index = 0;
  while (index < pending_.size() &&
         (pending_[index].collective.mask != mask || pending_[index].collective.name != name)) {
    ++index;
  }
  if (index == pending_.size()) {
    check_conflicts(engine, thread, name, mask);
    pending_.push_back({{name, mask}, work, aligned});
  }
  Collective& collective = pending_[index].collective;
  collective.arrived |= 1u << thread.lane;
  collective.items[static_cast<std::size_t>(thread.lane)] = item;
  if (collective.arrived == (mask & live_)) {
    finish(engine, index, &thread);
    return;
  }
  thread.in_collective = true;
  engine.sleep();
}

void Warp::finish(Engine& engine, std::size_t index, const Thread* last) {
  Pending done = pending_[index];
  pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(index));
  if (done.work != nullptr) done.work(engine, done.collective);
  for (int lane = 0; lane < 32; ++lane) {
    if ((done.collective.arrived >> lane & 1) == 0) continue;
    Thread& thread = lane_thread(engine, lane);
    if (&thread == last) continue;
    thread.in_collective = false;
    engine.wake(thread);
  }
}

void Warp::lane_exited(Engine& engine, int lane) {
  live_ &= ~(1u << lane);
  for (std::size_t index = 0; index < pending_.size();) {
    const Pending& pending = pending_[index];
    const Collective& collective = pending.collective;
    if ((collective.mask >> lane & 1) == 0) {
      ++index;
      continue;
    }
    if (pending.aligned) {
      engine.fail(engine.current(), [&] {
        return "exits while " + lanes_text(collective.arrived) + " of its warp execute " +
               collective.name + ", which needs all 32 lanes";
      });
    }
    if (collective.arrived == (collective.mask & live_)) {
      finish(engine, index, nullptr);
    } else {
      ++index;
    }
  }
}

std::string Warp::describe(int lane) const {
  for (const Pending& pending : pending_) {
    const Collective& collective = pending.collective;
    if ((collective.arrived >> lane & 1) == 0) continue;
    return call_text(collective.name, collective.mask) + " for " +
           lanes_text(collective.mask & live_ & ~collective.arrived) + " of warp " +
           std::to_string(warp_);
  }
  return "no collective";
}

}  // namespace simt::engine
