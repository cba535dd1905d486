// cp.async.bulk: copies of whole ranges by the async proxy (section 9.7.9.25.4). A load reports to
// an mbarrier, a store to its bulk group.
// SPDX-License-Identifier: Apache-2.0
#include "instructions/bulk_copy.h"

#include <cstring>
#include <memory>
#include <vector>

#include "instructions/instructions.h"
#include "instructions/memory_operands.h"
#include "lanes.h"
#include "memory.h"
#include "state.h"

namespace ptxsim {
namespace {

constexpr u64 kOffsetMask = (u64{1} << kRankShift) - 1;

void check_multiple_of_16(Warp& warp, u32 bytes) {
  if (bytes % 16 != 0) {
    fail(warp, "a bulk copy of " + std::to_string(bytes) + " bytes: no multiple of 16");
  }
}

/// Issues a load to one of its destinations; `move` writes the bytes there.
void issue_load_to(Warp& warp, const BulkLoad& load, u64 to, u64 barrier_address) {
  u8* const shared = shared_pointer(warp, to, load.bytes);
  const MbarrierPlace barrier = mbarrier_at(warp, load.lane, Space::kShared, barrier_address);
  check_init_fenced(warp, barrier, "the async proxy");
  if (options().check) check_async_write(warp, shared, load.bytes);
  PendingCopy copy;
  copy.warp = &warp;
  copy.lane = load.lane;
  const auto move = load.move;
  const u32 bytes = load.bytes;
  copy.land = [&warp, shared, move, bytes, barrier] {
    move(shared, static_cast<u64>(shared - block_of(warp, shared)->shared));
    complete_bytes(warp, barrier, bytes);
  };
  issue_bulk_copy(warp, std::move(copy));
}

struct RangeLoad {
  Address to, from, barrier;
  Reg bytes;
  Multicast multicast;
};

void load_range(Warp& warp, u32 lane, const RangeLoad& operands) {
  const u32 bytes = warp.lanes<u32>(operands.bytes)[lane];
  const u64 from = operands.from.of(warp, lane);
  check_multiple_of_16(warp, bytes);
  check_aligned(warp, operands.to.of(warp, lane), 16, "destination of a bulk copy");
  check_aligned(warp, from, 16, "source of a bulk copy");
  const u8* const source = lane_pointer(warp, lane, Space::kGlobal, from, bytes);
  const auto move = [=](u8* to, u64) { std::memcpy(to, source, bytes); };
  issue_load(warp, {lane, bytes, operands.to.of(warp, lane), operands.barrier.of(warp, lane), move},
             operands.multicast);
}

void store_range(Warp& warp, u32 lane, const Address& to, const Address& from, Reg size) {
  const u32 bytes = warp.lanes<u32>(size)[lane];
  check_multiple_of_16(warp, bytes);
  check_aligned(warp, to.of(warp, lane), 16, "destination of a bulk copy");
  check_aligned(warp, from.of(warp, lane), 16, "source of a bulk copy");
  u8* const destination = lane_pointer(warp, lane, Space::kGlobal, to.of(warp, lane), bytes);
  const u8* const source = shared_pointer(warp, from.of(warp, lane), bytes);
  issue_store(
      warp, lane, source, bytes, [=](u8* taken) { std::memcpy(taken, source, bytes); },
      [=](const u8* taken) { std::memcpy(destination, taken, bytes); });
}

}  // namespace

Multicast multicast_of(Decoder& decoder, std::size_t i) {
  if (!decoder.has("multicast::cluster")) return {};
  return {true, decoder.read(i, 2)};
}

void issue_load(Warp& warp, const BulkLoad& load, const Multicast& multicast) {
  if (options().count) {
    ++warp.cluster->counts->tma_loads;
    warp.cluster->counts->tma_load_bytes += load.bytes;
  }
  if (!multicast.is_used) return issue_load_to(warp, load, load.to, load.barrier);
  // Copies to the same offset in each block of the mask, and reports to the mbarrier at the same
  // offset there.
  const u32 mask = warp.lanes<u16>(multicast.mask)[load.lane];
  const std::size_t num_blocks = warp.cluster->blocks.size();
  if (mask == 0 || mask >> num_blocks != 0) {
    fail(warp, "multicast to blocks that the cluster does not have");
  }
  each_lane(mask, [&](u32 rank) {
    const u64 there = (u64{rank} + 1) << kRankShift;
    issue_load_to(warp, load, (load.to & kOffsetMask) | there,
                  (load.barrier & kOffsetMask) | there);
  });
}

void issue_store(Warp& warp, u32 lane, const u8* source, u64 bytes,
                 std::function<void(u8* taken)> read, std::function<void(const u8* taken)> write) {
  if (block_of(warp, source) != warp.block) fail(warp, "a bulk store from another block");
  if (options().check) check_async_read(warp, source, bytes);
  if (options().count) warp.cluster->counts->tma_store_bytes += bytes;
  const auto taken = std::make_shared<std::vector<u8>>(bytes);
  PendingCopy copy;
  copy.warp = &warp;
  copy.lane = lane;
  copy.is_load = false;
  copy.group = warp.bulk_groups.open[lane];
  copy.read = [taken, read = std::move(read)] { read(taken->data()); };
  copy.land = [taken, write = std::move(write)] { write(taken->data()); };
  issue_bulk_copy(warp, std::move(copy));
}

void decode_bulk_load(Decoder& decoder) {
  const std::size_t num_operands = decoder.has("multicast::cluster") ? 5 : 4;
  expect_operands_and_policy(decoder, num_operands);
  RangeLoad operands{decoder.address(0), decoder.address(1), decoder.address(3), decoder.read(2, 4),
                     multicast_of(decoder, 4)};
  decoder.execute([=](Warp& warp, u32 lanes) {
    each_lane(lanes, [&](u32 lane) { load_range(warp, lane, operands); });
  });
}

void decode_bulk_store(Decoder& decoder) {
  expect_operands_and_policy(decoder, 3);
  const Address to = decoder.address(0);
  const Address from = decoder.address(1);
  const Reg bytes = decoder.read(2, 4);
  decoder.execute([=](Warp& warp, u32 lanes) {
    each_lane(lanes, [&](u32 lane) { store_range(warp, lane, to, from, bytes); });
  });
}

void decode_bulk_prefetch(Decoder& decoder) {
  expect_operands_and_policy(decoder, 2);
  const Address from = decoder.address(0);
  const Reg size = decoder.read(1, 4);
  decoder.execute([=](Warp& warp, u32 lanes) {
    each_lane(lanes, [&](u32 lane) {
      const u32 bytes = warp.lanes<u32>(size)[lane];
      check_multiple_of_16(warp, bytes);
      check_aligned(warp, from.of(warp, lane), 16, "source of a bulk prefetch");
      lane_pointer(warp, lane, Space::kGlobal, from.of(warp, lane), bytes);
    });
  });
}

void decode_bulk_commit_group(Decoder& decoder) {
  decoder.expect_operands(0);
  decoder.execute([](Warp& warp, u32 lanes) {
    each_lane(lanes, [&](u32 lane) { ++warp.bulk_groups.open[lane]; });
  });
}

void decode_bulk_wait_group(Decoder& decoder) {
  decoder.expect_operands(1);
  const auto num_left = static_cast<u32>(decoder.immediate(0));
  const bool only_read = decoder.has("read");
  decoder.execute([=](Warp& warp, u32 lanes) {
    each_lane(lanes, [&](u32 lane) { wait_bulk_groups(warp, lane, num_left, only_read); });
  });
}

}  // namespace ptxsim
