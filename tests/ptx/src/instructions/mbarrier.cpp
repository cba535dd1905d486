// mbarrier.* (section 9.7.13.15).
// SPDX-License-Identifier: Apache-2.0
#include <optional>
#include <utility>

#include "instructions/instructions.h"
#include "instructions/memory_operands.h"
#include "lanes.h"
#include "mbarriers.h"
#include "state.h"

namespace ptxsim {
namespace {

/// The operand [address] of an mbarrier.
struct Object {
  Address address;
  Space space = Space::kGeneric;
  bool own_block = true;

  MbarrierPlace of(Warp& warp, u32 lane) const {
    const MbarrierPlace place = mbarrier_at(warp, lane, space, address.of(warp, lane));
    if (place.block == warp.block) return place;
    if (own_block) fail(warp, "an mbarrier of another block, without .shared::cluster", 1u << lane);
    check_init_fenced(warp, place, "another block");
    return place;
  }
};

Object object_at(Decoder& decoder, std::size_t i) {
  return {decoder.address(i), space_of(decoder), !decoder.has("shared::cluster")};
}

/// The register to which mbarrier.arrive writes the state; none for `_`.
std::optional<Reg> state_result(Decoder& decoder) {
  if (decoder.is_sink(0)) return std::nullopt;
  if (decoder.has("shared::cluster")) decoder.fail("there is no state of a remote mbarrier");
  return decoder.write(0, 8);
}

/// Executes `operation(place, lane)` for each lane, after it has read the state.
template <class Operation>
void execute_arrival(Decoder& decoder, const Object& object, std::optional<Reg> state,
                     Operation operation) {
  decoder.execute([=](Warp& warp, u32 lanes) {
    const Times told = options().check ? publish(warp, lanes) : Times{};
    each_lane(lanes, [&](u32 lane) {
      const MbarrierPlace place = object.of(warp, lane);
      if (state) warp.lanes<u64>(*state)[lane] = mbarrier_state(warp, place);
      operation(warp, place, lane, told);
    });
  });
}

/// Decodes mbarrier.expect_tx and .complete_tx, which pass a number of bytes to `change`.
void decode_transaction(Decoder& decoder, void (*change)(Warp&, MbarrierPlace, u32 bytes)) {
  decoder.expect_operands(2);
  const Object object = object_at(decoder, 0);
  const Reg bytes = decoder.read(1, 4);
  decoder.execute([=](Warp& warp, u32 lanes) {
    each_lane(lanes,
              [&](u32 lane) { change(warp, object.of(warp, lane), warp.lanes<u32>(bytes)[lane]); });
  });
}

}  // namespace

void decode_mbarrier_init(Decoder& decoder) {
  decoder.expect_operands(2);
  const Object object = object_at(decoder, 0);
  const Reg count = decoder.read(1, 4);
  decoder.execute([=](Warp& warp, u32 lanes) {
    each_lane(lanes, [&](u32 lane) {
      init_mbarrier(warp, lane, object.of(warp, lane), warp.lanes<u32>(count)[lane]);
    });
  });
}

void decode_mbarrier_inval(Decoder& decoder) {
  decoder.expect_operands(1);
  const Object object = object_at(decoder, 0);
  decoder.execute([=](Warp& warp, u32 lanes) {
    each_lane(lanes, [&](u32 lane) { invalidate_mbarrier(warp, object.of(warp, lane)); });
  });
}

void decode_mbarrier_expect_tx(Decoder& decoder) { decode_transaction(decoder, &expect_bytes); }
void decode_mbarrier_complete_tx(Decoder& decoder) { decode_transaction(decoder, &complete_bytes); }

void decode_mbarrier_arrive(Decoder& decoder) {
  if (decoder.num_operands() != 2) decoder.expect_operands(3);
  const std::optional<Reg> state = state_result(decoder);
  const Object object = object_at(decoder, 1);
  const Reg count =
      decoder.num_operands() == 3 ? decoder.read(2, 4) : decoder.constant(/*value=*/1, /*bytes=*/4);
  execute_arrival(decoder, object, state,
                  [=](Warp& warp, MbarrierPlace place, u32 lane, const Times& told) {
                    arrive(warp, place, warp.lanes<u32>(count)[lane], told);
                  });
}

void decode_mbarrier_arrive_expect_tx(Decoder& decoder) {
  decoder.expect_operands(3);
  const std::optional<Reg> state = state_result(decoder);
  const Object object = object_at(decoder, 1);
  const Reg bytes = decoder.read(2, 4);
  execute_arrival(decoder, object, state,
                  [=](Warp& warp, MbarrierPlace place, u32 lane, const Times& told) {
                    expect_bytes(warp, place, warp.lanes<u32>(bytes)[lane]);
                    arrive(warp, place, /*count=*/1, told);
                  });
}

void decode_mbarrier_arrive_no_complete(Decoder& decoder) {
  decoder.expect_operands(3);
  const std::optional<Reg> state = state_result(decoder);
  const Object object = object_at(decoder, 1);
  const Reg count = decoder.read(2, 4);
  execute_arrival(decoder, object, state,
                  [=](Warp& warp, MbarrierPlace place, u32 lane, const Times& told) {
                    const u32 arrivals = warp.lanes<u32>(count)[lane];
                    if (arrivals >= pending_arrivals(mbarrier_state(warp, place))) {
                      fail(warp, "mbarrier.arrive.noComplete would complete the phase");
                    }
                    arrive(warp, place, arrivals, told);
                  });
}

void decode_mbarrier_wait(Decoder& decoder) {
  const bool has_hint = decoder.has("try_wait") && decoder.num_operands() == 4;
  decoder.expect_operands(has_hint ? 4 : 3);
  const bool by_parity = decoder.has("parity");
  const Reg done = decoder.write(0, 0);
  const Object object = object_at(decoder, 1);
  const Reg phase = decoder.read(2, by_parity ? 4 : 8);
  if (has_hint) decoder.read(3, 4);
  decoder.execute(
      [=](Warp& warp, u32 lanes) {
        u32 complete = 0;
        each_lane(lanes, [&](u32 lane) {
          const u32 parity =
              by_parity ? warp.lanes<u32>(phase)[lane] : parity_of(warp.lanes<u64>(phase)[lane]);
          if (parity > 1) {
            fail(warp, "a phase's parity is " + std::to_string(parity) + ", neither 0 nor 1",
                 1u << lane);
          }
          complete |= static_cast<u32>(test_phase(warp, object.of(warp, lane), parity)) << lane;
        });
        set_bits(warp.predicate(done), lanes, complete);
        warp.poll_failed = complete != lanes;
      },
      Flow::kPoll);
}

void decode_mbarrier_pending_count(Decoder& decoder) {
  decoder.expect_operands(2);
  const Reg count = decoder.write(0, 4);
  const Reg state = decoder.read(1, 8);
  decoder.execute([=](Warp& warp, u32 lanes) {
    each_lane(lanes, [&](u32 lane) {
      warp.lanes<u32>(count)[lane] = pending_arrivals(warp.lanes<u64>(state)[lane]);
    });
  });
}

}  // namespace ptxsim
