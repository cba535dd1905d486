// setmaxnreg, elect.sync: see hopper_registers.h.
// SPDX-License-Identifier: Apache-2.0
#include "hopper_registers.h"

#include <simt/hopper.h>

#include "engine.h"
#include "hopper_units.h"

namespace simt::engine {
namespace {

constexpr int kRegistersPerBlock = 64 * 1024;
constexpr unsigned kAllWarps = 0xf;

std::size_t group_of(const Thread& thread) { return static_cast<std::size_t>(thread.id / 128); }

}  // namespace

void RegisterPool::start_block(const Engine& engine) {
  const int threads = engine.num_threads();
  const int registers = threads > 256 ? kRegistersPerBlock / threads / 8 * 8 : 0;
  warpgroups_ = {};
  for (WarpgroupState& group : warpgroups_) group.registers = registers;
  free_ = 0;
}

void RegisterPool::set(Engine& engine, const Thread& thread, int registers, bool increase) {
  WarpgroupState& group = warpgroups_[group_of(thread)];
  const unsigned warp = 1U << (thread.warp % 4);
  if (registers < 24 || registers > 256 || registers % 8 != 0) {
    engine.fail(thread, [&] {
      return "executes setmaxnreg with " + std::to_string(registers) +
             " registers: multiples of 8 from 24 to 256 are possible";
    });
  }
  if (group.warps == 0) {
    group.wanted = registers;
    group.increases = increase;
  } else if ((group.warps & warp) != 0 || group.wanted != registers ||
             group.increases != increase) {
    engine.fail(thread,
                "executes a setmaxnreg that is not the one its warpgroup's other warps "
                "execute");
  }
  group.warps |= warp;
  if (group.warps == kAllWarps) apply(engine, thread, group);
}

void RegisterPool::apply(Engine& engine, const Thread& thread, WarpgroupState& group) {
  const bool is_wrong_way =
      group.increases ? group.wanted < group.registers : group.wanted > group.registers;
  if (group.registers != 0 && is_wrong_way) {
    engine.fail(thread, [&] {
      return "executes setmaxnreg." + std::string(group.increases ? "inc" : "dec") + " to " +
             std::to_string(group.wanted) + " registers, and holds " +
             std::to_string(group.registers);
    });
  }
  if (!group.increases || group.registers == 0) {
    if (group.registers != 0) free_ += group.registers - group.wanted;
    group.registers = group.registers == 0 ? 0 : group.wanted;
    group.warps = 0;
  }
  grant(engine);
}

void RegisterPool::grant(Engine& engine) {
  for (WarpgroupState& group : warpgroups_) {
    const int more = group.wanted - group.registers;
    if (group.warps != kAllWarps || more > free_) continue;
    free_ -= more;
    group.registers = group.wanted;
    group.warps = 0;
  }
  engine.notify();
}

bool RegisterPool::has_taken_effect(const Thread& thread) const {
  const WarpgroupState& group = warpgroups_[group_of(thread)];
  return !group.increases || (group.warps & (1U << (thread.warp % 4))) == 0;
}

}  // namespace simt::engine

namespace simt {

using engine::Collective;
using engine::Engine;
using engine::HopperUnits;
using engine::LibraryCall;
using engine::RegisterPool;
using engine::Thread;

namespace {

struct RegisterCall {
  int registers;
  bool increase;
};

void set_registers(Engine& engine, Collective& collective) {
  const Thread& thread = engine.current();
  const auto& call =
      *static_cast<const RegisterCall*>(collective.items[static_cast<std::size_t>(thread.lane)]);
  HopperUnits::instance().registers.set(engine, thread, call.registers, call.increase);
}

}  // namespace

void setmaxnreg(int registers, bool increase) {
  LibraryCall call;
  Engine& engine = call.engine();
  Thread& thread = call.thread();
  HopperUnits::instance().products.of(engine, thread);
  RegisterCall item{registers, increase};
  engine.warp_of(thread).meet(engine, thread, "setmaxnreg", engine::kAllLanes, /*aligned=*/true,
                              &item, &set_registers);
  const RegisterPool* pool = &HopperUnits::instance().registers;
  const Thread* self = &thread;
  engine.block_until([pool, self] { return pool->has_taken_effect(*self); },
                     {.format = "setmaxnreg.inc to %lld registers", .first = registers});
}

bool elect_one() {
  LibraryCall call;
  Engine& engine = call.engine();
  Thread& thread = call.thread();
  bool elected = false;
  // Any lane will do; kernels may rely on getting the same one each time.
  engine.warp_of(thread).meet(
      engine, thread, "elect.sync", engine::kAllLanes, /*aligned=*/true, &elected,
      [](Engine& at, Collective& collective) {
        *static_cast<bool*>(collective.items[at.launch_options().seed % 32]) = true;
      });
  return elected;
}

}  // namespace simt
