// Shared by bulk copies of ranges and of boxes: destinations, mbarriers, groups.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "decoder.h"

namespace ptxsim {

/// .multicast::cluster: one bit per block of the cluster.
struct Multicast {
  bool is_used = false;
  Reg mask;
};
/// The multicast mask in operand `i`, if the opcode has the modifier.
Multicast multicast_of(Decoder& decoder, std::size_t i);

struct BulkLoad {
  u32 lane = 0;
  u32 bytes = 0;
  u64 to = 0;       // In shared memory.
  u64 barrier = 0;  // The mbarrier.
  /// Writes the bytes; `offset` is the offset of `to` in its block's shared memory.
  std::function<void(u8* to, u64 offset)> move;
};
void issue_load(Warp& warp, const BulkLoad& load, const Multicast& multicast);

/// `read` takes the bytes from shared memory, `write` stores them to global memory.
void issue_store(Warp& warp, u32 lane, const u8* source, u64 bytes,
                 std::function<void(u8* taken)> read, std::function<void(const u8* taken)> write);

}  // namespace ptxsim
