// What the instructions of sm_90 keep of a block: see hopper_units.h.
// SPDX-License-Identifier: Apache-2.0
#include "hopper_units.h"

#include <simt/hopper.h>

#include "engine.h"

namespace simt::engine {
namespace {

void start_block(Engine& engine) {
  HopperUnits& units = HopperUnits::instance();
  units.fences.start_block(engine.clocks());
  units.mbarriers.start_block();
  units.bulk_copies.start_block();
  units.products.start_block();
  units.registers.start_block(engine);
  units.thread_arrivals.clear();
}

void thread_exits(Engine& engine, const Thread& thread) {
  HopperUnits& units = HopperUnits::instance();
  units.bulk_copies.thread_exits(engine, thread);
  units.products.thread_exits(engine, thread);
}

}  // namespace

HopperUnits& HopperUnits::instance() {
  static HopperUnits* units = [] {
    Engine::instance().add_unit({&start_block, &thread_exits});
    return new HopperUnits;  // Never destroyed: static objects may launch.
  }();
  return *units;
}

namespace {

// Before the first launch, so that each block begins with start_block().
[[maybe_unused]] const HopperUnits& registered = HopperUnits::instance();

}  // namespace
}  // namespace simt::engine
