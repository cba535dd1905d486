// Warp-wide instructions (sections 9.7.9.6, 9.7.13.8 to 9.7.13.13). The schedule calls them once
// all lanes of one mask have arrived.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cstring>

#include "instructions/instructions.h"
#include "lanes.h"
#include "state.h"

namespace ptxsim {
namespace {

void meet(Decoder& decoder, std::size_t members) {
  decoder.op().members = decoder.read(members, 4);
}

/// d|p: the predicate, or one that nothing reads.
Reg second_result(Decoder& decoder, u8 bytes, bool& exists) {
  const auto& parts = decoder.operand(0).parts;
  exists = !parts.empty();
  return exists ? decoder.write(parts[0], bytes) : decoder.scratch(bytes);
}

/// Where a lane of shfl reads, and whether that is within its segment.
struct ShuffleSource {
  u32 lane = 0;
  bool in_range = false;
};

/// The manual's pseudocode: `b` is the lane or the distance; `c` holds the clamp value in bits 0 to
/// 4 and the segment mask in bits 8 to 12.
template <char kMode>
ShuffleSource shuffle_source(u32 lane, u32 b, u32 c) {
  constexpr u32 kLaneBits = kWarpSize - 1;
  const u32 distance = b & kLaneBits;
  const u32 clamp = c & kLaneBits;
  const u32 segment = c >> 8 & kLaneBits;
  const u32 last = (lane & segment) | (clamp & ~segment);
  const u32 first = lane & segment;
  ShuffleSource source;
  if constexpr (kMode == 'u') {
    source.lane = lane - distance;
    source.in_range = static_cast<s32>(source.lane) >= static_cast<s32>(last);
  } else {
    if constexpr (kMode == 'd') source.lane = lane + distance;
    if constexpr (kMode == 'b') source.lane = lane ^ distance;
    if constexpr (kMode == 'i') source.lane = first | (distance & ~segment);
    source.in_range = source.lane <= last;
  }
  if (!source.in_range) source.lane = lane;
  return source;
}

struct ShuffleOperands {
  Reg d, p, a, b, c;
  bool has_p = false;
};

template <char kMode>
void shuffle(Warp& warp, const ShuffleOperands& operands, u32 lanes) {
  const u32* const b = warp.lanes<u32>(operands.b);
  const u32* const c = warp.lanes<u32>(operands.c);
  u32 a[kWarpSize];
  std::memcpy(a, warp.lanes<u32>(operands.a), sizeof a);
  u32 result[kWarpSize];
  u32 in_range = 0;
  u32 sources = 0;
  each_lane(lanes, [&](u32 lane) {
    const ShuffleSource source = shuffle_source<kMode>(lane, b[lane], c[lane]);
    result[lane] = a[source.lane];
    sources |= 1u << source.lane;
    in_range |= static_cast<u32>(source.in_range) << lane;
  });
  if ((sources & ~lanes) != 0) {
    fail(warp,
         "shfl reads lane " + std::to_string(first_lane(sources & ~lanes)) +
             ", which does not take part",
         lanes);
  }
  u32* const d = warp.lanes<u32>(operands.d);
  each_lane(lanes, [&](u32 lane) { d[lane] = result[lane]; });
  if (operands.has_p) set_bits(warp.predicate(operands.p), lanes, in_range);
}

/// The same where distance and segments are constants, computed once.
struct ShuffleTable {
  u8 source[kWarpSize];
  u32 in_range = 0;
};

template <char kMode>
ShuffleTable shuffle_table(u32 b, u32 c) {
  ShuffleTable table;
  for (u32 lane = 0; lane < kWarpSize; ++lane) {
    const ShuffleSource source = shuffle_source<kMode>(lane, b, c);
    table.source[lane] = static_cast<u8>(source.lane);
    table.in_range |= static_cast<u32>(source.in_range) << lane;
  }
  return table;
}

void shuffle_all(Warp& warp, const ShuffleOperands& operands, const ShuffleTable& table) {
  u32 a[kWarpSize];
  std::memcpy(a, warp.lanes<u32>(operands.a), sizeof a);
  u32* const d = warp.lanes<u32>(operands.d);
  for (u32 lane = 0; lane < kWarpSize; ++lane) d[lane] = a[table.source[lane]];
  if (operands.has_p) warp.predicate(operands.p) = table.in_range;
}

template <char kMode>
void decode_shuffle(Decoder& decoder, const ShuffleOperands& operands) {
  const auto is_constant = [&](std::size_t i) {
    return decoder.operand(i).kind == Operand::Kind::kImmediate;
  };
  if (!is_constant(2) || !is_constant(3)) {
    decoder.execute([=](Warp& warp, u32 lanes) { shuffle<kMode>(warp, operands, lanes); },
                    Flow::kMeetMask);
    return;
  }
  const ShuffleTable table = shuffle_table<kMode>(static_cast<u32>(decoder.immediate(2)),
                                                  static_cast<u32>(decoder.immediate(3)));
  decoder.execute(
      [=](Warp& warp, u32 lanes) {
        if (lanes == kAllLanes) {
          shuffle_all(warp, operands, table);
        } else {
          shuffle<kMode>(warp, operands, lanes);
        }
      },
      Flow::kMeetMask);
}

template <class F>
void decode_redux_by(Decoder& decoder, Reg d, Reg a, F combine) {
  decoder.execute(
      [=](Warp& warp, u32 lanes) {
        const u32* const values = warp.lanes<u32>(a);
        u32 result = values[first_lane(lanes)];
        for (u32 rest = lanes & (lanes - 1); rest != 0; rest &= rest - 1) {
          result = combine(result, values[first_lane(rest)]);
        }
        u32* const to = warp.lanes<u32>(d);
        each_lane(lanes, [&](u32 lane) { to[lane] = result; });
      },
      Flow::kMeetMask);
}

template <class T>
void decode_match_any(Decoder& decoder, Reg d, Reg a) {
  decoder.execute(
      [=](Warp& warp, u32 lanes) {
        const T* const values = warp.lanes<T>(a);
        u32 result[kWarpSize];
        each_lane(lanes, [&](u32 lane) {
          u32 equal = 0;
          each_lane(lanes, [&](u32 other) {
            equal |= static_cast<u32>(values[lane] == values[other]) << other;
          });
          result[lane] = equal;
        });
        u32* const to = warp.lanes<u32>(d);
        each_lane(lanes, [&](u32 lane) { to[lane] = result[lane]; });
      },
      Flow::kMeetMask);
}

template <class T>
void decode_match_all(Decoder& decoder, Reg d, Reg p, Reg a) {
  decoder.execute(
      [=](Warp& warp, u32 lanes) {
        const T* const values = warp.lanes<T>(a);
        const T first = values[first_lane(lanes)];
        bool equal = true;
        each_lane(lanes, [&](u32 lane) { equal &= values[lane] == first; });
        const u32 result = equal ? lanes : 0;
        u32* const to = warp.lanes<u32>(d);
        each_lane(lanes, [&](u32 lane) { to[lane] = result; });
        set_bits(warp.predicate(p), lanes, equal ? kAllLanes : 0);
      },
      Flow::kMeetMask);
}

template <class F>
void decode_vote_by(Decoder& decoder, F holds) {
  const Reg d = decoder.write(0, 0);
  const Predicate a = decoder.read_predicate(1);
  meet(decoder, 2);
  decoder.execute(
      [=](Warp& warp, u32 lanes) {
        const bool result = holds(a.of(warp) & lanes, lanes);
        set_bits(warp.predicate(d), lanes, result ? kAllLanes : 0);
      },
      Flow::kMeetMask);
}

}  // namespace

// shfl.sync.mode.b32 d{|p}, a, b, c, membermask
void decode_shfl(Decoder& decoder) {
  decoder.expect_operands(5);
  ShuffleOperands operands;
  operands.d = decoder.write(0, 4);
  operands.p = second_result(decoder, 0, operands.has_p);
  operands.a = decoder.read(1, 4);
  operands.b = decoder.read(2, 4);
  operands.c = decoder.read(3, 4);
  meet(decoder, 4);
  if (decoder.has("up")) return decode_shuffle<'u'>(decoder, operands);
  if (decoder.has("down")) return decode_shuffle<'d'>(decoder, operands);
  if (decoder.has("bfly")) return decode_shuffle<'b'>(decoder, operands);
  decode_shuffle<'i'>(decoder, operands);
}

// vote.sync.mode.pred d, {!}a, membermask
void decode_vote(Decoder& decoder) {
  decoder.expect_operands(3);
  if (decoder.has("any")) return decode_vote_by(decoder, [](u32 a, u32) { return a != 0; });
  if (decoder.has("all")) return decode_vote_by(decoder, [](u32 a, u32 all) { return a == all; });
  decode_vote_by(decoder, [](u32 a, u32 all) { return a == 0 || a == all; });
}

// vote.sync.ballot.b32 d, {!}a, membermask
void decode_ballot(Decoder& decoder) {
  decoder.expect_operands(3);
  const Reg d = decoder.write(0, 4);
  const Predicate a = decoder.read_predicate(1);
  meet(decoder, 2);
  decoder.execute(
      [=](Warp& warp, u32 lanes) {
        const u32 ballot = a.of(warp) & lanes;
        u32* const to = warp.lanes<u32>(d);
        each_lane(lanes, [&](u32 lane) { to[lane] = ballot; });
      },
      Flow::kMeetMask);
}

// match.any.sync.type d, a, membermask
void decode_match_any(Decoder& decoder) {
  decoder.expect_operands(3);
  const u8 bytes = bytes_of_type(decoder.last_word());
  const Reg d = decoder.write(0, 4);
  const Reg a = decoder.read(1, bytes);
  meet(decoder, 2);
  if (bytes == 4) return decode_match_any<u32>(decoder, d, a);
  decode_match_any<u64>(decoder, d, a);
}

// match.all.sync.type d{|p}, a, membermask
void decode_match_all(Decoder& decoder) {
  decoder.expect_operands(3);
  const u8 bytes = bytes_of_type(decoder.last_word());
  const Reg d = decoder.write(0, 4);
  bool has_p = false;
  const Reg p = second_result(decoder, 0, has_p);
  const Reg a = decoder.read(1, bytes);
  meet(decoder, 2);
  if (bytes == 4) return decode_match_all<u32>(decoder, d, p, a);
  decode_match_all<u64>(decoder, d, p, a);
}

// redux.sync.op.type d, a, membermask
void decode_redux(Decoder& decoder) {
  decoder.expect_operands(3);
  const Reg d = decoder.write(0, 4);
  const Reg a = decoder.read(1, 4);
  meet(decoder, 2);
  const auto by = [&](auto combine) { decode_redux_by(decoder, d, a, combine); };
  const bool is_signed = decoder.last_word() == "s32";
  const auto as_signed = [](u32 x) { return static_cast<s32>(x); };
  if (decoder.has("add")) return by([](u32 x, u32 y) { return x + y; });
  if (decoder.has("and")) return by([](u32 x, u32 y) { return x & y; });
  if (decoder.has("or")) return by([](u32 x, u32 y) { return x | y; });
  if (decoder.has("xor")) return by([](u32 x, u32 y) { return x ^ y; });
  if (decoder.has("min")) {
    if (!is_signed) return by([](u32 x, u32 y) { return std::min(x, y); });
    return by([=](u32 x, u32 y) { return as_signed(x) < as_signed(y) ? x : y; });
  }
  if (!is_signed) return by([](u32 x, u32 y) { return std::max(x, y); });
  by([=](u32 x, u32 y) { return as_signed(x) > as_signed(y) ? x : y; });
}

// elect.sync d|p, membermask. The implementation chooses the lane: here, the first.
void decode_elect(Decoder& decoder) {
  decoder.expect_operands(2);
  const Reg d = decoder.write(0, 4);
  bool has_p = false;
  const Reg p = second_result(decoder, 0, has_p);
  if (!has_p) decoder.fail("elect.sync without a predicate");
  meet(decoder, 1);
  decoder.execute(
      [=](Warp& warp, u32 lanes) {
        const u32 leader = first_lane(lanes);
        u32* const to = warp.lanes<u32>(d);
        each_lane(lanes, [&](u32 lane) { to[lane] = leader; });
        set_bits(warp.predicate(p), lanes, 1u << leader);
      },
      Flow::kMeetMask);
}

// activemask.b32 d
void decode_activemask(Decoder& decoder) {
  decoder.expect_operands(1);
  const Reg d = decoder.write(0, 4);
  decoder.execute([=](Warp& warp, u32 lanes) {
    u32* const to = warp.lanes<u32>(d);
    each_lane(lanes, [&](u32 lane) { to[lane] = lanes; });
  });
}

// bar.warp.sync membermask
void decode_warp_barrier(Decoder& decoder) {
  decoder.expect_operands(1);
  meet(decoder, 0);
  decoder.nothing(Flow::kWarpBarrier);
}

}  // namespace ptxsim
