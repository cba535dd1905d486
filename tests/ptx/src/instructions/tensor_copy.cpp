// cp.async.bulk.tensor: boxes of a tensor, tiled (section 9.7.9.25.5).
// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "instructions/bulk_copy.h"
#include "instructions/instructions.h"
#include "instructions/memory_operands.h"
#include "lanes.h"
#include "memory.h"
#include "state.h"
#include "tensor_map.h"

namespace ptxsim {
namespace {

constexpr u64 kSharedAlignment = 128;

/// The operand [map, {coordinates}].
struct BoxOperand {
  Address map;
  std::vector<Reg> coordinates;

  Box of(Warp& warp, u32 lane) const {
    Box box{tensor_map_at(warp, map.of(warp, lane)), {}};
    if (box.map.rank != coordinates.size()) {
      fail(warp, "the tensor map has " + std::to_string(box.map.rank) +
                     " dimensions, the instruction " + std::to_string(coordinates.size()));
    }
    for (std::size_t d = 0; d < coordinates.size(); ++d) {
      box.at[d] = warp.lanes<s32>(coordinates[d])[lane];
    }
    check_box(warp, box);
    return box;
  }
};

BoxOperand box_at(Decoder& decoder, std::size_t i) {
  BoxOperand box;
  box.map = decoder.address(i);
  if (box.map.base.bytes != 8) decoder.fail("a tensor map's address has 64 bits");
  const Operand& operand = decoder.operand(i);
  if (operand.parts.size() != 1 || operand.parts[0].kind != Operand::Kind::kVector) {
    decoder.fail("there are no coordinates");
  }
  for (const Operand& part : operand.parts[0].parts) {
    box.coordinates.push_back(decoder.read(part, 4));
  }
  const std::string dimensions = std::to_string(box.coordinates.size()) + "d";
  if (!decoder.has(dimensions)) decoder.fail("coordinates of another number of dimensions");
  return box;
}

void load_tensor(Warp& warp, u32 lane, const BoxOperand& operand, const Address& to,
                 const Address& barrier, const Multicast& multicast) {
  const Box box = operand.of(warp, lane);
  check_aligned(warp, to.of(warp, lane), kSharedAlignment, "destination of a bulk tensor copy");
  const auto bytes = static_cast<u32>(box_bytes(box.map));
  const auto move = [box](u8* shared, u64 offset) { load_box(box, shared, offset); };
  issue_load(warp, {lane, bytes, to.of(warp, lane), barrier.of(warp, lane), move}, multicast);
}

void store_tensor(Warp& warp, u32 lane, const BoxOperand& operand, const Address& from) {
  const Box box = operand.of(warp, lane);
  const u64 bytes = box_bytes(box.map);
  check_aligned(warp, from.of(warp, lane), kSharedAlignment, "source of a bulk tensor copy");
  const u8* const source = shared_pointer(warp, from.of(warp, lane), bytes);
  const u64 offset = static_cast<u64>(source - warp.block->shared);
  issue_store(
      warp, lane, source, bytes, [=](u8* taken) { read_box(box, source, offset, {taken, bytes}); },
      [=](const u8* taken) { write_box(box, {taken, bytes}); });
}

}  // namespace

void decode_tensor_load(Decoder& decoder) {
  const std::size_t num_operands = decoder.has("multicast::cluster") ? 4 : 3;
  expect_operands_and_policy(decoder, num_operands);
  const Address to = decoder.address(0);
  const BoxOperand box = box_at(decoder, 1);
  const Address barrier = decoder.address(2);
  const Multicast multicast = multicast_of(decoder, 3);
  decoder.execute([=](Warp& warp, u32 lanes) {
    each_lane(lanes, [&](u32 lane) { load_tensor(warp, lane, box, to, barrier, multicast); });
  });
}

void decode_tensor_store(Decoder& decoder) {
  expect_operands_and_policy(decoder, 2);
  const BoxOperand box = box_at(decoder, 0);
  const Address from = decoder.address(1);
  decoder.execute([=](Warp& warp, u32 lanes) {
    each_lane(lanes, [&](u32 lane) { store_tensor(warp, lane, box, from); });
  });
}

void decode_tensor_prefetch(Decoder& decoder) {
  expect_operands_and_policy(decoder, 1);
  const BoxOperand box = box_at(decoder, 0);
  decoder.execute(
      [=](Warp& warp, u32 lanes) { each_lane(lanes, [&](u32 lane) { box.of(warp, lane); }); });
}

}  // namespace ptxsim
