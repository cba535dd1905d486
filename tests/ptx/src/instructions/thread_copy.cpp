// cp.async: copies of 4, 8 or 16 bytes by a lane, through the generic proxy, which complete later
// (section 9.7.9.25.3).
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <optional>

#include "instructions/instructions.h"
#include "instructions/memory_operands.h"
#include "lanes.h"
#include "memory.h"
#include "state.h"

namespace ptxsim {
namespace {

struct CopyOperands {
  Address to, from;
  u32 bytes = 0;
  std::optional<Reg> source_bytes;
  std::optional<Predicate> ignore_source;
};

void copy(Warp& warp, u32 lanes, const CopyOperands& operands) {
  const u32 ignored = operands.ignore_source ? operands.ignore_source->of(warp) : 0;
  const u32* const given =
      operands.source_bytes ? warp.lanes<u32>(*operands.source_bytes) : nullptr;
  each_lane(lanes, [&](u32 lane) {
    const bool is_ignored = (ignored >> lane & 1) != 0;
    const u32 source = is_ignored ? 0 : given != nullptr ? given[lane] : operands.bytes;
    if (source > operands.bytes) {
      fail(warp, "cp.async reads " + std::to_string(source) + " bytes for " +
                     std::to_string(operands.bytes));
    }
    const u64 to = operands.to.of(warp, lane);
    const u64 from = operands.from.of(warp, lane);
    check_aligned(warp, to, operands.bytes, "destination of cp.async");
    check_aligned(warp, from, operands.bytes, "source of cp.async");
    ThreadCopy pending;
    pending.to = lane_pointer(warp, lane, Space::kShared, to, operands.bytes);
    if (source != 0) pending.from = lane_pointer(warp, lane, Space::kGlobal, from, source);
    pending.bytes = source;
    pending.zeros = operands.bytes - source;
    if (options().count) warp.cluster->counts->cp_async_bytes += source;
    issue_thread_copy(warp, lane, pending);
  });
  ++warp.cluster->events;
}

/// The arrival that follows once the copies are complete.
void arrive_behind_copies(Warp& warp, u32 lanes, const Address& address, Space space,
                          bool increments) {
  std::array<MbarrierPlace, kWarpSize> places;
  std::array<u64, kWarpSize> ends;
  each_lane(lanes, [&](u32 lane) {
    places[lane] = mbarrier_at(warp, lane, space, address.of(warp, lane));
    ends[lane] = warp.copies.issued[lane];
    if (increments) expect_arrivals(warp, places[lane], 1);
  });
  PendingCopy arrival;
  arrival.warp = &warp;
  arrival.lane = first_lane(lanes);
  arrival.land = [&warp, lanes, places, ends] {
    each_lane(lanes, [&](u32 lane) { wait_thread_copies(warp, lane, ends[lane]); });
    const Times told = publish(warp, lanes);
    each_lane(lanes, [&](u32 lane) { arrive(warp, places[lane], 1, told); });
  };
  issue_bulk_copy(warp, std::move(arrival));
}

}  // namespace

void decode_cp_async(Decoder& decoder) {
  CopyOperands operands;
  const bool has_policy = decoder.has("L2::cache_hint");
  const std::size_t num_operands = decoder.num_operands() - (has_policy ? 1 : 0);
  expect_operands_and_policy(decoder, std::clamp<std::size_t>(num_operands, 3, 4));
  operands.to = decoder.address(0);
  operands.from = decoder.address(1);
  operands.bytes = static_cast<u32>(decoder.immediate(2));
  const bool is_known =
      operands.bytes == 16 || (decoder.has("ca") && (operands.bytes == 4 || operands.bytes == 8));
  if (!is_known) decoder.fail("copies of that many bytes are not allowed");
  if (num_operands == 4) {
    const Operand& last = decoder.operand(3);
    const bool is_predicate = last.kind == Operand::Kind::kRegister && last.reg.bytes == 0;
    if (is_predicate) {
      operands.ignore_source = decoder.read_predicate(3);
    } else {
      operands.source_bytes = decoder.read(3, 4);
    }
  }
  decoder.execute([=](Warp& warp, u32 lanes) { copy(warp, lanes, operands); });
}

void decode_cp_async_commit_group(Decoder& decoder) {
  decoder.expect_operands(0);
  decoder.execute([](Warp& warp, u32 lanes) {
    each_lane(lanes, [&](u32 lane) { ++warp.copies.open_group[lane]; });
  });
}

void decode_cp_async_wait(Decoder& decoder) {
  if (decoder.has("wait_all")) {
    decoder.expect_operands(0);
    return decoder.execute([](Warp& warp, u32 lanes) {
      each_lane(lanes, [&](u32 lane) { wait_thread_copies(warp, lane, warp.copies.issued[lane]); });
    });
  }
  decoder.expect_operands(1);
  const auto num_left = static_cast<u32>(decoder.immediate(0));
  decoder.execute([=](Warp& warp, u32 lanes) {
    each_lane(lanes, [&](u32 lane) { wait_thread_groups(warp, lane, num_left); });
  });
}

void decode_cp_async_mbarrier_arrive(Decoder& decoder) {
  decoder.expect_operands(1);
  const Address address = decoder.address(0);
  const Space space = space_of(decoder);
  const bool increments = !decoder.has("noinc");
  decoder.execute([=](Warp& warp, u32 lanes) {
    arrive_behind_copies(warp, lanes, address, space, increments);
  });
}

}  // namespace ptxsim
