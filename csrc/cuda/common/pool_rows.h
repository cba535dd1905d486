// Mean of each 64 rows of a head, split into two bf16 numbers, in the order in which tensor cores
// take it. The rows are read once; one launch makes the means of q and of k.
//
// Why split: mean = high + low, both bf16, is right to 2^-17 of itself at any magnitude (fp16 would
// run out of exponent). high * high + high * low + low * high then selects as fp32 sums do. Means
// rounded once to bf16 would be off by 2^-8, and would swap neighbours among thousands of close
// scores. The split costs three products instead of one: 3.3 instead of 1.1 TFLOP at 1M tokens and
// 32 heads of 128 dims. Both element types give the same precision.
//
// Layout: 8 means and 16 dims make a fragment group of 512 bytes: lane 4 r + t of a warp finds its
// part of mean r there, 16 bytes at once, as operand of mma.m16n8k16 (arch/matrix.h). Groups:
// [ceil(slots / 8)][padded_dim / 16]. Dims from head_dim on, and slots past the rows, are zeros.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "core/kv_rows.h"
#include "core/pattern.h"
#include "cuda/arch/element.h"
#include "cuda/arch/emulation.h"
#include "cuda/device/thread_group.h"

namespace minference::cuda {

/// A lane's part of a mean for 16 dims: dims 2t, 2t + 1 in word 0, dims 2t + 8, 2t + 9 in word 1.
struct alignas(16) SplitFragment {
  uint32_t high[2];
  uint32_t low[2];
};

inline constexpr int kGroupMeans = 8;
inline constexpr int kGroupDims = 16;

/// Slots of a head are padded to a multiple of this, so that readers get whole tiles.
inline constexpr int32_t kPoolPadding = 64;

MINF_HOST_DEVICE constexpr int64_t padded_slots(int64_t blocks, int64_t multiple) {
  return (blocks + multiple - 1) / multiple * multiple;
}

/// Fragments of `slots` padded slots.
MINF_HOST_DEVICE constexpr int64_t num_fragments(int64_t slots, int padded_dim) {
  return slots / kGroupMeans * (padded_dim / kGroupDims) * device::kWarpThreads;
}

/// At which slot mean `block` is stored.
enum class SlotOrder : int32_t {
  kAscending,  // At its own place.
  /// Of 16 blocks 4 t + 2 j + e at slot 8 j + 2 t + e: as columns of two products, they give lane t
  /// of a quad the scores of 4 consecutive blocks.
  kQuads,
};

MINF_HOST_DEVICE inline int64_t slot_of(SlotOrder order, int64_t block) {
  if (order == SlotOrder::kAscending) return block;
  const int64_t t = block / 4 % 4, j = block / 2 % 2;
  return block / 16 * 16 + 8 * j + 2 * t + block % 2;
}

/// The heads of one tensor that a launch pools.
struct PoolHeads {
  const HeadRows<uint16_t>* rows;  // [num_heads], in device memory; 16-byte aligned.
  int32_t num_heads;
  int32_t num_rows;
  int64_t slots;          // padded_slots() of the head's blocks.
  SplitFragment* pooled;  // [num_heads][num_fragments(slots, padded_dim)]
  SlotOrder order;
};

struct PoolParams {
  PoolHeads queries;
  PoolHeads keys;
  int32_t head_dim;  // A multiple of 8.
};

}  // namespace minference::cuda
