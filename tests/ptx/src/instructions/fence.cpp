// Fences (section 9.7.13.4), cache control, and addresses in a cluster. Fences of the generic proxy
// have no effect because memory is coherent here; proxies.h checks those of the async proxy.
// SPDX-License-Identifier: Apache-2.0
#include "instructions/instructions.h"
#include "instructions/memory_operands.h"
#include "lanes.h"
#include "memory.h"
#include "state.h"
#include "tensor_map.h"

namespace ptxsim {
namespace {

/// The block that owns a shared::cluster or generic address.
const Block& block_at(Warp& warp, u64 address, bool is_generic) {
  const u8* const at =
      is_generic ? reinterpret_cast<const u8*>(address) : shared_pointer(warp, address, 1);
  const Block* const block = block_of(warp, at);
  if (block == nullptr) fail(warp, "no address of the cluster's shared memory");
  return *block;
}

u64 address_in(Warp& warp, u64 address, u32 rank, bool is_generic) {
  if (rank >= warp.cluster->blocks.size()) {
    fail(warp, "mapa: the cluster has no block " + std::to_string(rank));
  }
  const Block& from = block_at(warp, address, is_generic);
  const Block& to = warp.cluster->blocks[rank];
  const u8* const at =
      is_generic ? reinterpret_cast<const u8*>(address) : shared_pointer(warp, address, 1);
  const u8* const there = to.shared + (at - from.shared);
  return is_generic ? reinterpret_cast<u64>(there) : cluster_address(to, there);
}

u64 value_of(const Warp& warp, Reg reg, u32 lane) {
  return reg.bytes == 8 ? warp.lanes<u64>(reg)[lane] : warp.lanes<u32>(reg)[lane];
}

}  // namespace

void decode_fence(Decoder& decoder) {
  decoder.expect_operands(0);
  decoder.nothing();
}

void decode_fence_mbarrier_init(Decoder& decoder) {
  decoder.expect_operands(0);
  decoder.execute([](Warp& warp, u32 lanes) { fence_mbarrier_init(warp, lanes); });
}

void decode_fence_proxy_async(Decoder& decoder) {
  decoder.expect_operands(0);
  // Proxies are not tracked in global memory.
  if (decoder.has("global")) return decoder.nothing();
  decoder.execute([](Warp& warp, u32 lanes) { fence_proxy_async(warp, lanes); });
}

void decode_fence_tensormap(Decoder& decoder) {
  if (decoder.has("acquire")) {
    decoder.expect_operands(2);
    decoder.address(0);
    if (decoder.immediate(1) != 128) decoder.fail("the size must be 128");
  } else {
    decoder.expect_operands(0);
  }
  decoder.nothing();
}

void decode_prefetch(Decoder& decoder) {
  decoder.expect_operands(1);
  decoder.address(0);
  decoder.nothing();
}

void decode_prefetch_tensormap(Decoder& decoder) {
  decoder.expect_operands(1);
  const Address address = decoder.address(0);
  decoder.execute([=](Warp& warp, u32 lanes) {
    each_lane(lanes, [&](u32 lane) { tensor_map_at(warp, address.of(warp, lane)); });
  });
}

void decode_createpolicy(Decoder& decoder) {
  if (decoder.num_operands() != 1) decoder.expect_operands(2);  // The second operand is a fraction.
  const Reg policy = decoder.write(0, 8);
  decoder.execute([=](Warp& warp, u32 lanes) {
    each_lane(lanes, [&](u32 lane) { warp.lanes<u64>(policy)[lane] = 0; });
  });
}

void decode_mapa(Decoder& decoder) {
  decoder.expect_operands(3);
  const bool is_generic = !decoder.has("shared::cluster");
  const u8 bytes = bytes_of_type(decoder.last_word());
  const Reg result = decoder.write(0, bytes);
  const Reg address = decoder.read(1, bytes);
  const Reg rank = decoder.read(2, 4);
  decoder.execute([=](Warp& warp, u32 lanes) {
    each_lane(lanes, [&](u32 lane) {
      const u64 there =
          address_in(warp, value_of(warp, address, lane), warp.lanes<u32>(rank)[lane], is_generic);
      if (result.bytes == 8) {
        warp.lanes<u64>(result)[lane] = there;
      } else {
        warp.lanes<u32>(result)[lane] = static_cast<u32>(there);
      }
    });
  });
}

void decode_getctarank(Decoder& decoder) {
  decoder.expect_operands(2);
  const bool is_generic = !decoder.has("shared::cluster");
  const Reg result = decoder.write(0, 4);
  const Reg address = decoder.read(1, bytes_of_type(decoder.last_word()));
  decoder.execute([=](Warp& warp, u32 lanes) {
    each_lane(lanes, [&](u32 lane) {
      warp.lanes<u32>(result)[lane] =
          block_at(warp, value_of(warp, address, lane), is_generic).rank;
    });
  });
}

}  // namespace ptxsim
