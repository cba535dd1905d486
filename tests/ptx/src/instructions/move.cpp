// mov, cvta, isspacep: copy values and convert addresses without changing their meaning.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "elementwise.h"
#include "instructions.h"
#include "memory.h"

namespace ptxsim {
namespace {

/// Cycles between two reads of the clock, whatever runs between them.
constexpr u64 kClockStep = 32;

void decode_mov_clock(Decoder& decoder) {
  const u8 bytes = bytes_of_type(decoder.last_word());
  const std::string& name = decoder.operand(1).name;
  const bool is_wide = name == "%clock64" || name == "%globaltimer";
  if (bytes != (is_wide ? 8 : 4)) decoder.fail("'" + name + "' has another size");
  const u32 shift = name.ends_with("_hi") ? 32 : 0;
  const Reg to = decoder.write(0, bytes);
  decoder.execute([=](Warp& warp, u32 lanes) {
    warp.cluster->clock += kClockStep;
    const u64 now = warp.cluster->clock >> shift;
    each_lane(lanes, [&](u32 lane) {
      if (bytes == 8) {
        warp.lanes<u64>(to)[lane] = now;
      } else {
        warp.lanes<u32>(to)[lane] = static_cast<u32>(now);
      }
    });
  });
}

/// {a, b} = d and d = {a, b}: splits a register into two halves, or joins them.
template <class Whole, class Half>
void execute_join(Decoder& decoder, Reg to, const std::vector<Reg>& from) {
  const Reg low = from[0];
  const Reg high = from[1];
  decoder.execute([=](Warp& warp, u32 lanes) {
    Whole* d = warp.lanes<Whole>(to);
    const Half* a = warp.lanes<Half>(low);
    const Half* b = warp.lanes<Half>(high);
    each_lane_apart(lanes, [=](u32 lane) {
      d[lane] = static_cast<Whole>(Whole{a[lane]} | Whole{b[lane]} << (8 * sizeof(Half)));
    });
  });
}
template <class Whole, class Half>
void execute_split(Decoder& decoder, const std::vector<Reg>& to, Reg from) {
  const Reg low = to[0];
  const Reg high = to[1];
  decoder.execute([=](Warp& warp, u32 lanes) {
    const Whole* a = warp.lanes<Whole>(from);
    Half* d = warp.lanes<Half>(low);
    Half* e = warp.lanes<Half>(high);
    each_lane_apart(lanes, [=](u32 lane) {
      const Whole value = a[lane];
      d[lane] = static_cast<Half>(value);
      e[lane] = static_cast<Half>(value >> (8 * sizeof(Half)));
    });
  });
}

/// Joins four 16-bit parts to 64 bits.
void execute_join_four(Decoder& decoder, Reg to, const std::vector<Reg>& from) {
  const std::array<Reg, 4> parts = {from[0], from[1], from[2], from[3]};
  decoder.execute([=](Warp& warp, u32 lanes) {
    each_lane(lanes, [&](u32 lane) {
      u64 whole = 0;
      for (u32 i = 0; i < 4; ++i) whole |= u64{warp.lanes<u16>(parts[i])[lane]} << (16 * i);
      warp.lanes<u64>(to)[lane] = whole;
    });
  });
}
void execute_split_four(Decoder& decoder, const std::vector<Reg>& to, Reg from) {
  const std::array<Reg, 4> parts = {to[0], to[1], to[2], to[3]};
  decoder.execute([=](Warp& warp, u32 lanes) {
    each_lane(lanes, [&](u32 lane) {
      const u64 whole = warp.lanes<u64>(from)[lane];
      for (u32 i = 0; i < 4; ++i) {
        warp.lanes<u16>(parts[i])[lane] = static_cast<u16>(whole >> (16 * i));
      }
    });
  });
}

void decode_mov_vector(Decoder& decoder) {
  const u8 bytes = bytes_of_type(decoder.last_word());
  const bool joins = decoder.operand(1).kind == Operand::Kind::kVector;
  const std::size_t num_parts = decoder.operand(joins ? 1 : 0).parts.size();
  if (num_parts != 2 && !(num_parts == 4 && bytes == 8)) decoder.fail("parts of this size");
  const u8 part_bytes = static_cast<u8>(bytes / num_parts);
  if (part_bytes < 2) decoder.fail("parts of this size");
  if (joins) {
    const std::vector<Reg> from = decoder.read_all(1, part_bytes);
    const Reg to = decoder.write(0, bytes);
    if (num_parts == 4) return execute_join_four(decoder, to, from);
    return bytes == 8 ? execute_join<u64, u32>(decoder, to, from)
                      : execute_join<u32, u16>(decoder, to, from);
  }
  const Reg from = decoder.read(1, bytes);
  const std::vector<Reg> to = decoder.write_all(0, part_bytes);
  if (num_parts == 4) return execute_split_four(decoder, to, from);
  return bytes == 8 ? execute_split<u64, u32>(decoder, to, from)
                    : execute_split<u32, u16>(decoder, to, from);
}

/// Converts shared addresses of the block or cluster to generic ones.
u64 generic_of_shared(Warp& warp, u64 address) {
  const u64 rank_above = address >> kRankShift;
  const u64 offset = address & ((u64{1} << kRankShift) - 1);
  // An inaccessible address stays inaccessible after the conversion.
  if (rank_above == 0 || rank_above > warp.cluster->blocks.size()) {
    return reinterpret_cast<u64>(warp.block->shared) + address;
  }
  return reinterpret_cast<u64>(warp.cluster->blocks[rank_above - 1].shared) + offset;
}
u64 shared_of_generic(Warp& warp, u64 address) {
  const auto* at = reinterpret_cast<const u8*>(address);
  const Block* block = block_of(warp, at);
  // An address outside of shared memory stays outside: its offset is beyond everything accessible.
  if (block == nullptr || block == warp.block) {
    return address - reinterpret_cast<u64>(warp.block->shared);
  }
  return cluster_address(*block, at);
}

bool is_in_space(Warp& warp, u64 address, std::string_view space) {
  const auto* at = reinterpret_cast<const u8*>(address);
  const Block* block = block_of(warp, at);
  if (space == "shared" || space == "shared::cta") return block == warp.block;
  if (space == "shared::cluster") return block != nullptr;
  const bool is_local =
      at >= warp.local && at < warp.local + static_cast<std::size_t>(kWarpSize) * warp.local_bytes;
  if (space == "local") return is_local;
  return block == nullptr && !is_local;
}

}  // namespace

void decode_mov(Decoder& decoder) {
  decoder.expect_operands(2);
  const Operand& from = decoder.operand(1);
  decoder.op().copies_undefined = true;
  if (from.kind == Operand::Kind::kClock) return decode_mov_clock(decoder);
  if (from.kind == Operand::Kind::kVector || decoder.operand(0).kind == Operand::Kind::kVector) {
    return decode_mov_vector(decoder);
  }
  with_bits(decoder, decoder.last_word(), [&](auto type) {
    using T = decltype(type);
    unary<T>(decoder, [](T a) { return a; });
  });
}

void decode_mov_pred(Decoder& decoder) {
  decoder.expect_operands(2);
  decoder.op().copies_undefined = true;
  const Reg from = decoder.read(1, 0);
  const Reg to = decoder.write(0, 0);
  decoder.execute(
      [=](Warp& warp, u32 lanes) { set_bits(warp.predicate(to), lanes, warp.predicate(from)); });
}

void decode_cvta(Decoder& decoder) {
  const bool is_to = decoder.word(1) == "to";
  const std::string_view space = decoder.word(is_to ? 2 : 1);
  if (!space.starts_with("shared")) {
    // All other addresses are the host's own.
    return unary<u64>(decoder, [](u64 a) { return a; });
  }
  decoder.expect_operands(2);
  const Reg from = decoder.read(1, 8);
  const Reg to = decoder.write(0, 8);
  decoder.execute([=](Warp& warp, u32 lanes) {
    const u64* a = warp.lanes<u64>(from);
    u64* d = warp.lanes<u64>(to);
    each_lane(lanes, [&](u32 lane) {
      d[lane] = is_to ? shared_of_generic(warp, a[lane]) : generic_of_shared(warp, a[lane]);
    });
  });
}

void decode_isspacep(Decoder& decoder) {
  decoder.expect_operands(2);
  const std::string space(decoder.word(1));
  const Reg from = decoder.read(1, 8);
  const Reg to = decoder.write(0, 0);
  decoder.execute([=](Warp& warp, u32 lanes) {
    u32 result = 0;
    each_lane(lanes, [&](u32 lane) {
      const u64 address = warp.lanes<u64>(from)[lane];
      result |= u32{is_in_space(warp, address, space)} << lane;
    });
    set_bits(warp.predicate(to), lanes, result);
  });
}

}  // namespace ptxsim
