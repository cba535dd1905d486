// SPDX-License-Identifier: Apache-2.0
#include "barriers.h"

#include <algorithm>
#include <bit>

#include "groups.h"
#include "lanes.h"
#include "state.h"

namespace ptxsim {
namespace {

std::string text(u64 value) { return std::to_string(value); }

/// Number of threads that arrived. Threads of a warp that exited or never existed arrive with its
/// last thread.
u32 num_arrived(const Barrier& barrier) {
  u32 count = 0;
  for (std::size_t i = 0; i < barrier.arrivals.size(); ++i) {
    const Arrival& arrival = barrier.arrivals[i];
    if (arrival.whole_warp) {
      count += kWarpSize;
      continue;
    }
    count += static_cast<u32>(std::popcount(arrival.lanes));
    u32 of_warp = 0;
    std::size_t last = i;
    for (std::size_t j = 0; j < barrier.arrivals.size(); ++j) {
      const Arrival& other = barrier.arrivals[j];
      if (other.warp != arrival.warp || other.whole_warp) continue;
      of_warp |= other.lanes;
      last = j;
    }
    const bool complete = (arrival.warp->alive & ~of_warp) == 0;
    if (complete && last == i) count += static_cast<u32>(std::popcount(~of_warp));
  }
  return count;
}

u32 num_expected(const Block& block, const Barrier& barrier) {
  if (barrier.expected != 0) return barrier.expected;
  const auto lives = [](const Warp& warp) { return warp.alive != 0; };
  return kWarpSize * static_cast<u32>(std::count_if(block.warps.begin(), block.warps.end(), lives));
}

/// bar.red: writes the result to the lanes that waited.
void store_result(Warp& warp, const BarrierOperands& operands, const Barrier& barrier, u32 lanes) {
  using Reduction = BarrierOperands::Reduction;
  switch (operands.reduction) {
    case Reduction::kNone:
      return;
    case Reduction::kPopc: {
      u32* const result = warp.lanes<u32>(operands.result);
      each_lane(lanes, [&](u32 lane) { result[lane] = barrier.votes; });
      return;
    }
    case Reduction::kAnd:
    case Reduction::kOr: {
      const bool holds = operands.reduction == Reduction::kAnd ? barrier.all : barrier.any;
      set_bits(warp.predicate(operands.result), lanes, holds ? kAllLanes : 0);
      return;
    }
  }
}

/// Opens the barrier if all have arrived.
void open_if_complete(Block& block, Barrier& barrier) {
  if (barrier.arrivals.empty()) return;
  if (num_arrived(barrier) < num_expected(block, barrier)) return;
  for (const Arrival& arrival : barrier.arrivals) {
    if (!arrival.waits) continue;
    Warp& warp = *arrival.warp;
    const Group& group = blocked_group(warp, arrival.lanes);
    const Op& op = warp.kernel->ops[group.pc];
    if (op.barrier != nullptr) {
      store_result(warp, *op.barrier, barrier, arrival.lanes);
      if (options().check) note_release(warp, static_cast<u32>(&barrier - block.barriers.named));
    }
    release(warp, arrival.lanes);
  }
  barrier.arrivals.clear();
  barrier.expected = 0;
  barrier.any = false;
  barrier.all = true;
  barrier.votes = 0;
  ++block.cluster->events;
}

u32 checked_count(const Warp& warp, u32 id, u32 count, u32 lanes) {
  const u32 most = kWarpSize * static_cast<u32>(warp.block->warps.size());
  if (count == 0 || count % kWarpSize != 0 || count > most) {
    fail(warp,
         "barrier " + text(id) + " for " + text(count) +
             " threads: their number is a multiple of 32, from 32 to the block's " + text(most),
         lanes);
  }
  return count;
}

Barrier& checked_barrier(Warp& warp, u32 id, u32 count, u32 lanes) {
  Barrier& barrier = warp.block->barriers.named[id];
  if (barrier.arrivals.empty()) {
    barrier.expected = count;
    return barrier;
  }
  if (barrier.expected == count) return barrier;
  // Two ways to say all threads of the block.
  const u32 all = kWarpSize * static_cast<u32>(warp.block->warps.size());
  if (std::min(barrier.expected, count) == 0 && std::max(barrier.expected, count) == all) {
    barrier.expected = all;
    return barrier;
  }
  const auto threads = [](u32 n) { return n == 0 ? "all" : text(n); };
  fail(warp,
       "barrier " + text(id) + " for " + threads(count) + " threads, while others wait at it for " +
           threads(barrier.expected),
       lanes);
}

void count_votes(Warp& warp, const BarrierOperands& operands, Barrier& barrier, u32 lanes) {
  if (operands.reduction == BarrierOperands::Reduction::kNone) return;
  const u32 predicate = warp.predicate(operands.vote);
  const u32 votes = (operands.vote_negated ? ~predicate : predicate) & lanes;
  barrier.any |= votes != 0;
  barrier.all &= votes == lanes;
  barrier.votes += static_cast<u32>(std::popcount(votes));
}

u32 value_in(const Warp& warp, Reg reg, u32 lane) { return warp.lanes<u32>(reg)[lane]; }

/// The lanes whose operands are equal to those of the first one.
u32 lanes_of_one_barrier(const Warp& warp, const BarrierOperands& operands, u32 lanes) {
  const u32 first = first_lane(lanes);
  u32 same = 0;
  each_lane(lanes, [&](u32 lane) {
    const bool equal = value_in(warp, operands.id, lane) == value_in(warp, operands.id, first) &&
                       (!operands.has_count || value_in(warp, operands.count, lane) ==
                                                   value_in(warp, operands.count, first));
    same |= static_cast<u32>(equal) << lane;
  });
  return same;
}

/// barrier.cluster: opens it if all live threads of the cluster have arrived.
void open_cluster_if_complete(Cluster& cluster) {
  bool any = false;
  for (const Block& block : cluster.blocks) {
    for (const Warp& warp : block.warps) {
      if ((warp.alive & ~warp.cluster_arrived) != 0) return;
      any |= warp.cluster_arrived != 0;
    }
  }
  if (!any) return;
  for (Block& block : cluster.blocks) {
    for (Warp& warp : block.warps) {
      if (options().check) note_release(warp, SharedAccesses::kClusterBarrier);
      warp.cluster_passed |= warp.cluster_arrived;
      warp.cluster_arrived = 0;
    }
  }
  for (const Waiting& waiting : cluster.barrier.waiting) {
    waiting.warp->cluster_passed &= ~waiting.lanes;
    release(*waiting.warp, waiting.lanes);
  }
  cluster.barrier.waiting.clear();
  ++cluster.events;
}

/// setmaxnreg.inc: serves those who have waited longest first.
void hand_out_registers(Block& block) {
  RegisterPool& pool = block.register_pool;
  while (!pool.waiting.empty()) {
    const Waiting waiting = pool.waiting.front();
    Warp& warp = *waiting.warp;
    const Group& group = blocked_group(warp, waiting.lanes);
    const u32 count = warp.kernel->ops[group.pc].set_registers.count;
    const u32 needed = kWarpSize * (count - warp.num_registers);
    if (needed > pool.free) return;
    pool.free -= needed;
    warp.num_registers = count;
    pool.waiting.erase(pool.waiting.begin());
    release(warp, waiting.lanes);
    ++block.cluster->events;
  }
}

}  // namespace

void arrive_at_barrier(Warp& warp, u32 lanes) {
  const BarrierOperands& operands = *warp.op->barrier;
  const u32 same = lanes_of_one_barrier(warp, operands, lanes);
  if (same != lanes) {
    if (operands.aligned) fail(warp, "lanes name different barriers or numbers of threads", lanes);
    split_current(warp, same);
    lanes = same;
  }
  const u32 first = first_lane(lanes);
  const u32 id = value_in(warp, operands.id, first);
  if (id >= BlockBarriers::kCount) {
    fail(warp, "barrier " + text(id) + ": there are " + text(BlockBarriers::kCount), lanes);
  }
  u32 count = 0;
  if (operands.has_count) {
    count = checked_count(warp, id, value_in(warp, operands.count, first), lanes);
  }
  Barrier& barrier = checked_barrier(warp, id, count, lanes);
  count_votes(warp, operands, barrier, lanes);
  barrier.arrivals.push_back({&warp, lanes, operands.waits, operands.aligned});
  if (options().check) note_arrival(warp, lanes, id);
  ++warp.cluster->events;
  const u32 arrived = num_arrived(barrier);
  if (barrier.expected != 0 && arrived > barrier.expected) {
    fail(warp,
         "barrier " + text(id) + ": " + text(arrived) + " threads arrived where it expects " +
             text(barrier.expected),
         lanes);
  }
  if (operands.waits) {
    block_current(warp);
  } else {
    ++warp.groups[warp.current].pc;
  }
  open_if_complete(*warp.block, barrier);
}

void arrive_at_warpgroup(Warp& warp, u32 lanes) {
  Block& block = *warp.block;
  constexpr u32 kWarps = 4;
  block.barriers.warpgroups.resize((block.warps.size() + kWarps - 1) / kWarps);
  Barrier& barrier = block.barriers.warpgroups[warp.id / kWarps];
  barrier.expected = kWarps * kWarpSize;
  barrier.arrivals.push_back({&warp, lanes, /*waits=*/true, /*whole_warp=*/true});
  ++warp.cluster->events;
  block_current(warp);
  open_if_complete(block, barrier);
}

void arrive_at_cluster(Warp& warp, u32 lanes) {
  const u32 again = lanes & (warp.cluster_arrived | warp.cluster_passed);
  if (again != 0) {
    fail(warp, "barrier.cluster.arrive, and no barrier.cluster.wait since the last one", again);
  }
  warp.cluster_arrived |= lanes;
  if (options().check) note_arrival(warp, lanes, SharedAccesses::kClusterBarrier);
  ++warp.groups[warp.current].pc;
  ++warp.cluster->events;
  open_cluster_if_complete(*warp.cluster);
}

void wait_for_cluster(Warp& warp, u32 lanes) {
  const u32 never = lanes & ~(warp.cluster_arrived | warp.cluster_passed);
  if (never != 0) fail(warp, "barrier.cluster.wait without barrier.cluster.arrive", never);
  const u32 passed = lanes & warp.cluster_passed;
  if (passed == lanes) {
    warp.cluster_passed &= ~lanes;
    ++warp.groups[warp.current].pc;
    return;
  }
  if (passed != 0) {
    split_current(warp, lanes & ~passed);
    lanes &= ~passed;
  }
  warp.cluster->barrier.waiting.push_back({&warp, lanes});
  block_current(warp);
}

void set_registers(Warp& warp, u32 lanes) {
  const bool increases = warp.op->set_registers.increases;
  const u32 count = warp.op->set_registers.count;
  const u32 held = warp.num_registers;
  if (held == 0) {
    fail(warp, "setmaxnreg needs a kernel with .maxnreg or launch bounds (.maxntid, .reqntid)");
  }
  if (increases ? count < held : count > held) {
    fail(warp, std::string("setmaxnreg.") + (increases ? "inc" : "dec") + " to " + text(count) +
                   ", but the warp holds " + text(held));
  }
  RegisterPool& pool = warp.block->register_pool;
  if (increases) {
    pool.waiting.push_back({&warp, lanes});
    block_current(warp);
  } else {
    pool.free += kWarpSize * (held - count);
    warp.num_registers = count;
    ++warp.groups[warp.current].pc;
    ++warp.cluster->events;
  }
  hand_out_registers(*warp.block);
}

void open_barriers_without(Warp& warp) {
  for (Barrier& barrier : warp.block->barriers.named) open_if_complete(*warp.block, barrier);
  open_cluster_if_complete(*warp.cluster);
}

std::string describe_barrier(const Warp& warp, u32 lanes) {
  for (u32 id = 0; id < BlockBarriers::kCount; ++id) {
    const Barrier& barrier = warp.block->barriers.named[id];
    for (const Arrival& arrival : barrier.arrivals) {
      if (arrival.warp != &warp || arrival.lanes != lanes || !arrival.waits) continue;
      return "barrier " + text(id) + " (arrived " + text(num_arrived(barrier)) + " of " +
             text(num_expected(*warp.block, barrier)) + ")";
    }
  }
  return "a barrier";
}

std::string describe_cluster_barrier(const Cluster& cluster) {
  int arrived = 0;
  int alive = 0;
  for (const Block& block : cluster.blocks) {
    for (const Warp& warp : block.warps) {
      arrived += std::popcount(warp.cluster_arrived & warp.alive);
      alive += std::popcount(warp.alive);
    }
  }
  return "(arrived " + std::to_string(arrived) + " of " + std::to_string(alive) + ")";
}

std::string describe_register_pool(const Warp& warp, u32 count) {
  return text(kWarpSize * (count - warp.num_registers)) +
         " registers (free: " + text(warp.block->register_pool.free) + ")";
}

u32 registers_of_launch(const Function& function) {
  if (function.max_registers != 0) return function.max_registers;
  if (function.max_threads == 0) return 0;
  constexpr u32 kFile = 65536;  // Per multiprocessor.
  constexpr u32 kMost = 255;
  constexpr u32 kStep = 8;
  const u32 blocks = std::max(function.min_blocks, 1u);
  return std::min(kMost, kFile / blocks / function.max_threads) / kStep * kStep;
}

}  // namespace ptxsim
