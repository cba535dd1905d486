// ld, st and related instructions (sections 9.7.9.8 to 9.7.9.12): move a lane's bytes to or from
// its registers. Caches and the ordering of .relaxed, .acquire and .release are not modelled: what
// one lane stores, every other lane sees.
// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstring>

#include "instructions/instructions.h"
#include "instructions/memory_operands.h"
#include "lanes.h"
#include "memory.h"
#include "state.h"

namespace ptxsim {
namespace {

struct Access {
  Address address;
  Space space = Space::kGeneric;
  std::array<Reg, 4> values;
  u32 num_values = 0;
  u32 bytes = 0;          // Total of all values.
  bool own_block = true;  // Is not .shared::cluster.
};

void count(Warp& warp, const Access& access, const u64* addresses, u32 lanes, const u8* first) {
  switch (access.space) {
    case Space::kShared:
      return count_shared_access(warp, addresses, lanes, access.bytes);
    case Space::kGlobal:
      return count_global_access(warp, addresses, lanes, access.bytes);
    case Space::kGeneric:
      if (block_of(warp, first) != nullptr) {
        return count_shared_access(warp, addresses, lanes, access.bytes);
      }
      if (find_memory(first).begin != nullptr) {
        return count_global_access(warp, addresses, lanes, access.bytes);
      }
      return;
    default:
      return;
  }
}

void check_own_block(Warp& warp, u32 lanes, const u64* addresses) {
  const u64 own = u64{warp.block->rank} + 1;
  each_lane(lanes, [&](u32 lane) {
    const u64 rank = addresses[lane] >> kRankShift;
    if (rank != 0 && rank != own) {
      fail(warp, "a .shared::cta address of another block of the cluster", 1u << lane);
    }
  });
}

/// Resolves the lanes' addresses, and counts the access.
void locate(Warp& warp, u32 lanes, const Access& access, u8** pointers) {
  u64 addresses[kWarpSize] = {};
  each_lane(lanes, [&](u32 lane) { addresses[lane] = access.address.of(warp, lane); });
  resolve(warp, lanes, access.space, addresses, access.bytes, pointers);
  if (access.own_block) check_own_block(warp, lanes, addresses);
  if (options().count) count(warp, access, addresses, lanes, pointers[first_lane(lanes)]);
}

bool may_be_shared(Space space) { return space == Space::kShared || space == Space::kGeneric; }

template <class Value, class Register>
void load(Warp& warp, u32 lanes, const Access& access) {
  u8* pointers[kWarpSize];
  locate(warp, lanes, access, pointers);
  for (u32 i = 0; i < access.num_values; ++i) {
    Register* const to = warp.lanes<Register>(access.values[i]);
    each_lane(lanes, [&](u32 lane) {
      Value value;
      std::memcpy(&value, pointers[lane] + i * sizeof(Value), sizeof value);
      to[lane] = static_cast<Register>(value);  // NOLINT(bugprone-signed-char-misuse): ld.s8
    });
  }
  if (options().check && may_be_shared(access.space)) {
    note_generic_reads(warp, lanes, pointers, access.bytes);
  }
}

template <class Value, class Register>
void store(Warp& warp, u32 lanes, const Access& access) {
  u8* pointers[kWarpSize];
  locate(warp, lanes, access, pointers);
  for (u32 i = 0; i < access.num_values; ++i) {
    const Register* const from = warp.lanes<Register>(access.values[i]);
    each_lane(lanes, [&](u32 lane) {
      const auto value = static_cast<Value>(from[lane]);
      std::memcpy(pointers[lane] + i * sizeof(Value), &value, sizeof value);
    });
  }
  if (options().check && may_be_shared(access.space)) {
    note_generic_writes(warp, lanes, pointers, access.bytes);
  }
  ++warp.cluster->events;
}

using Move = void (*)(Warp& warp, u32 lanes, const Access& access);

/// A register may be wider than the value: loads extend the value, stores take the register's low
/// bits (section 9.4.1).
template <template <class, class> class Mover, class Value>
Move move_of(const Decoder& decoder, u8 register_bytes) {
  switch (register_bytes) {
    case 2:
      return Mover<Value, std::conditional_t<std::is_signed_v<Value>, s16, u16>>::move;
    case 4:
      return Mover<Value, std::conditional_t<std::is_signed_v<Value>, s32, u32>>::move;
    case 8:
      return Mover<Value, std::conditional_t<std::is_signed_v<Value>, s64, u64>>::move;
    default:
      decoder.fail("a predicate is no value of memory");
  }
}

template <class Value, class Register>
struct Load {
  static void move(Warp& warp, u32 lanes, const Access& access) {
    load<Value, Register>(warp, lanes, access);
  }
};
template <class Value, class Register>
struct Store {
  static void move(Warp& warp, u32 lanes, const Access& access) {
    store<Value, Register>(warp, lanes, access);
  }
};

template <template <class, class> class Mover>
Move move_by_type(const Decoder& decoder, std::string_view type, u8 register_bytes) {
  const bool is_signed = type.front() == 's';
  switch (bytes_of_type(type)) {
    case 1:
      return is_signed ? move_of<Mover, s8>(decoder, register_bytes)
                       : move_of<Mover, u8>(decoder, register_bytes);
    case 2:
      return is_signed ? move_of<Mover, s16>(decoder, register_bytes)
                       : move_of<Mover, u16>(decoder, register_bytes);
    case 4:
      return is_signed ? move_of<Mover, s32>(decoder, register_bytes)
                       : move_of<Mover, u32>(decoder, register_bytes);
    case 8:
      return move_of<Mover, u64>(decoder, register_bytes);
    default:
      decoder.fail("no type of a load or store");
  }
}

/// The registers of a load or store, one or a vector, all of the same size.
void take_values(const Decoder& decoder, Access& access, const std::vector<Reg>& registers) {
  const u32 expected = decoder.has("v2") ? 2 : decoder.has("v4") ? 4 : 1;
  if (registers.size() != expected) decoder.fail("a vector of another size");
  for (const Reg reg : registers) {
    if (reg.bytes != registers.front().bytes) decoder.fail("registers of different sizes");
    access.values[access.num_values++] = reg;
  }
  access.bytes = expected * bytes_of_type(decoder.last_word());
  if (access.bytes > 16) decoder.fail("more than 16 bytes a lane");
}

u8 register_bytes(const Decoder& decoder) {
  return std::max<u8>(bytes_of_type(decoder.last_word()), 2);
}

/// The parts of a vector, or the operand itself.
std::vector<const Operand*> parts_of(const Operand& operand) {
  if (operand.kind != Operand::Kind::kVector) return {&operand};
  std::vector<const Operand*> parts;
  for (const Operand& part : operand.parts) parts.push_back(&part);
  return parts;
}

}  // namespace

Space space_of(const Decoder& decoder) {
  for (const std::string& word : decoder.instruction().words) {
    if (word == "shared" || word == "shared::cta" || word == "shared::cluster") {
      return Space::kShared;
    }
    if (word == "global") return Space::kGlobal;
    if (word == "local") return Space::kLocal;
    if (word == "param" || word == "param::entry" || word == "param::func") return Space::kParam;
    if (word == "const") return Space::kConst;
  }
  return Space::kGeneric;
}

void expect_operands_and_policy(Decoder& decoder, std::size_t num_operands) {
  const bool has_policy = decoder.has("L2::cache_hint");
  decoder.expect_operands(num_operands + (has_policy ? 1 : 0));
  if (has_policy) decoder.read(num_operands, 8);
}

void decode_ld(Decoder& decoder) {
  expect_operands_and_policy(decoder, 2);
  Access access;
  access.space = space_of(decoder);
  access.own_block = access.space == Space::kShared && !decoder.has("shared::cluster");
  std::vector<Reg> registers;
  u8 widest = register_bytes(decoder);
  for (const Operand* part : parts_of(decoder.operand(0))) {
    if (part->kind != Operand::Kind::kSink) widest = std::max(widest, part->reg.bytes);
  }
  for (const Operand* part : parts_of(decoder.operand(0))) {
    const bool is_sink = part->kind == Operand::Kind::kSink;
    registers.push_back(is_sink ? decoder.write(*part, widest)
                                : decoder.write_relaxed(*part, register_bytes(decoder)));
  }
  access.address = decoder.address(1);
  take_values(decoder, access, registers);
  const Move move = move_by_type<Load>(decoder, decoder.last_word(), registers.front().bytes);
  decoder.execute([=](Warp& warp, u32 lanes) { move(warp, lanes, access); });
}

void decode_st(Decoder& decoder) {
  expect_operands_and_policy(decoder, 2);
  Access access;
  access.space = space_of(decoder);
  access.own_block = access.space == Space::kShared && !decoder.has("shared::cluster");
  access.address = decoder.address(0);
  std::vector<Reg> registers;
  for (const Operand* part : parts_of(decoder.operand(1))) {
    registers.push_back(decoder.read_relaxed(*part, register_bytes(decoder)));
  }
  take_values(decoder, access, registers);
  const Move move = move_by_type<Store>(decoder, decoder.last_word(), registers.front().bytes);
  decoder.execute([=](Warp& warp, u32 lanes) { move(warp, lanes, access); });
}

}  // namespace ptxsim
