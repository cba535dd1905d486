// What kernels call: shuffles, votes, reductions and barriers of a warp.
// SPDX-License-Identifier: Apache-2.0
#include <simt/device.h>

#include <algorithm>
#include <array>

#include "engine.h"

namespace simt {
namespace {

using engine::Collective;
using engine::Engine;
using engine::LibraryCall;

struct ShuffleItem {
  uint64_t value;
  uint64_t result;
  Shuffle kind;
  int operand;
  int width;
};

/// The lane that `lane` reads from. PTX ISA: shfl.sync; CUDA: width is a power of 2.
int source_lane(int lane, const ShuffleItem& item) {
  const int first = lane & ~(item.width - 1);
  switch (item.kind) {
    case Shuffle::kIndex:
      return first | (item.operand & (item.width - 1));
    case Shuffle::kUp:
      return lane - item.operand < first ? lane : lane - item.operand;
    case Shuffle::kDown:
      return lane + item.operand >= first + item.width ? lane : lane + item.operand;
    case Shuffle::kXor: {
      const int source = lane ^ item.operand;
      return source >= first + item.width ? lane : source;
    }
  }
  return lane;
}

const char* name_of(Shuffle kind) {
  static constexpr std::array<const char*, 4> kNames = {"__shfl_sync", "__shfl_up_sync",
                                                        "__shfl_down_sync", "__shfl_xor_sync"};
  return kNames[static_cast<std::size_t>(kind)];
}

void shuffle_lanes(Engine& engine, Collective& collective) {
  for (int lane = 0; lane < 32; ++lane) {
    if ((collective.arrived >> lane & 1) == 0) continue;
    auto& item = *static_cast<ShuffleItem*>(collective.items[static_cast<std::size_t>(lane)]);
    const int source = source_lane(lane, item);
    if ((collective.arrived >> source & 1) == 0) {
      engine.fail(engine.current(), [&] {
        return std::string("takes part in ") + collective.name + " in which lane " +
               std::to_string(lane) + " reads from lane " + std::to_string(source) +
               ", which does not take part";
      });
    }
    item.result =
        static_cast<const ShuffleItem*>(collective.items[static_cast<std::size_t>(source)])->value;
  }
}

struct VoteItem {
  uint64_t value;
  uint32_t result;
  WarpVote vote;
};

void count_votes(Engine&, Collective& collective) {
  const auto item_of = [&](int lane) -> VoteItem& {
    return *static_cast<VoteItem*>(collective.items[static_cast<std::size_t>(lane)]);
  };
  const auto equal_to = [&](uint64_t value) {
    uint32_t lanes = 0;
    for (int lane = 0; lane < 32; ++lane) {
      if ((collective.arrived >> lane & 1) != 0 && item_of(lane).value == value)
        lanes |= 1u << lane;
    }
    return lanes;
  };
  const uint32_t yes = equal_to(1);
  for (int lane = 0; lane < 32; ++lane) {
    if ((collective.arrived >> lane & 1) == 0) continue;
    VoteItem& item = item_of(lane);
    switch (item.vote) {
      case WarpVote::kBallot:
        item.result = yes;
        break;
      case WarpVote::kAny:
        item.result = yes != 0;
        break;
      case WarpVote::kAll:
        item.result = yes == collective.arrived;
        break;
      case WarpVote::kMatchAny:
        item.result = equal_to(item.value);
        break;
    }
  }
}

struct ReductionItem {
  uint32_t value;
  uint32_t result;
  WarpReduction operation;
};

uint32_t reduced(WarpReduction operation, uint32_t a, uint32_t b) {
  const auto as_signed = [](uint32_t x) { return static_cast<int32_t>(x); };
  switch (operation) {
    case WarpReduction::kAdd:
    case WarpReduction::kAddSigned:
      return a + b;
    case WarpReduction::kMin:
      return std::min(a, b);
    case WarpReduction::kMax:
      return std::max(a, b);
    case WarpReduction::kMinSigned:
      return as_signed(a) < as_signed(b) ? a : b;
    case WarpReduction::kMaxSigned:
      return as_signed(a) < as_signed(b) ? b : a;
    case WarpReduction::kAnd:
      return a & b;
    case WarpReduction::kOr:
      return a | b;
    case WarpReduction::kXor:
      return a ^ b;
  }
  return a;
}

void reduce_lanes(Engine&, Collective& collective) {
  const ReductionItem* total = nullptr;
  uint32_t value = 0;
  const auto for_each = [&](auto function) {
    for (std::size_t lane = 0; lane < 32; ++lane) {
      if ((collective.arrived >> lane & 1) != 0) {
        function(*static_cast<ReductionItem*>(collective.items[lane]));
      }
    }
  };
  for_each([&](const ReductionItem& item) {
    value = total == nullptr ? item.value : reduced(item.operation, value, item.value);
    total = &item;
  });
  for_each([&](ReductionItem& item) { item.result = value; });
}

void order_lanes(Engine& engine, Collective& collective) {
  std::array<int, 32> actors{};
  std::size_t count = 0;
  const int first = engine.current().warp * 32;
  for (int lane = 0; lane < 32; ++lane) {
    if ((collective.arrived >> lane & 1) != 0) actors[count++] = first + lane;
  }
  engine.clocks().meet(actors.data(), count);
}

}  // namespace

uint64_t warp_shuffle(Shuffle kind, uint32_t mask, uint64_t value, int operand, int width) {
  LibraryCall call;
  Engine& engine = call.engine();
  if (width < 1 || width > 32 || (width & (width - 1)) != 0) {
    engine.fail(call.thread(), [&] {
      return std::string("calls ") + name_of(kind) + " with width " + std::to_string(width);
    });
  }
  ShuffleItem item{value, 0, kind, operand, width};
  engine.warp_of(call.thread())
      .meet(engine, call.thread(), name_of(kind), mask, /*aligned=*/false, &item, &shuffle_lanes);
  return item.result;
}

uint32_t warp_vote(WarpVote vote, uint32_t mask, uint64_t value) {
  static constexpr std::array<const char*, 4> kNames = {"__ballot_sync", "__any_sync", "__all_sync",
                                                        "__match_any_sync"};
  LibraryCall call;
  VoteItem item{value, 0, vote};
  call.engine()
      .warp_of(call.thread())
      .meet(call.engine(), call.thread(), kNames[static_cast<std::size_t>(vote)], mask,
            /*aligned=*/false, &item, &count_votes);
  return item.result;
}

uint32_t warp_reduce(WarpReduction operation, uint32_t mask, uint32_t value) {
  static constexpr std::array<const char*, 9> kNames = {
      "__reduce_add_sync", "__reduce_add_sync", "__reduce_min_sync",
      "__reduce_max_sync", "__reduce_min_sync", "__reduce_max_sync",
      "__reduce_and_sync", "__reduce_or_sync",  "__reduce_xor_sync"};
  LibraryCall call;
  ReductionItem item{value, 0, operation};
  call.engine()
      .warp_of(call.thread())
      .meet(call.engine(), call.thread(), kNames[static_cast<std::size_t>(operation)], mask,
            /*aligned=*/false, &item, &reduce_lanes);
  return item.result;
}

void warp_barrier(uint32_t mask) {
  LibraryCall call;
  call.engine()
      .warp_of(call.thread())
      .meet(call.engine(), call.thread(), "__syncwarp", mask, /*aligned=*/false, nullptr,
            &order_lanes);
}

uint32_t active_mask() {
  LibraryCall call;
  return 1u << call.thread().lane;
}

}  // namespace simt
