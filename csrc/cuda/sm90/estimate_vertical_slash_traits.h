// Stage 1 of vertical-slash on sm90: what its two kernels share: tile shape, shared memory,
// barriers, and who works on which keys.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/host_device.h"
#include "cuda/arch/mbarrier.h"
#include "cuda/common/estimate_vertical_slash.h"
#include "cuda/device/score_sums.h"
#include "cuda/tma/ring_position.h"

namespace minference::sm90::vertical_slash {

inline constexpr int kWarpgroupWarps = 4;
inline constexpr int kWarpgroupHeads = 2;
inline constexpr int kPanelDims = 64;                     // A swizzled row of 128 bytes.
inline constexpr int kStepKeys = device::kStepKeys;       // Of one warp and product.
inline constexpr int kRangeKeys = 2 * device::kHalfKeys;  // Ranges are multiples of it.

/// Rows of keys or queries as wgmma reads them: K-major panels of 64 dims, 128-byte swizzle.
template <typename Element, int kRows, int kPanels>
struct OperandTile {
  alignas(1024) Element rows[kPanels][kRows][kPanelDims];
};

/// A block is a warpgroup for each two query heads of a KV head and, behind them, one that fetches
/// keys for all. S^T = K q^T: 64 keys are wgmma's rows, two heads' 128 queries its columns, so that
/// a thread has few keys and many rows, as with mma.sync on sm80: sums over rows and over diagonals
/// are mostly the thread's own. Not queries as rows: the sums would take four times the shuffles
/// and shared memory. Not one head: keys would come from shared memory once a head, 128 bytes a
/// cycle.
///
/// A warp's 16 of a product's 64 keys follow those that it had before: the block's keys are four
/// ranges, one per warp of each warpgroup, and a stage of the ring holds 16 keys of each. A warp
/// has all rows of its keys and meets the others only at the ends of ranges.
///
///     barrier    arrivals per phase    by                     waited for by    then
///     full[s]    1, and the bytes      the producing thread   consumers        stage s is there
///     empty[s]   4 a consumer          a lane of each         the producing    stage s may be
///                warpgroup             consumer warp, after   thread           overwritten
///                                      its product
///     1 + w      128                   consumer warpgroup w   itself           its queries can be
///     (named)                                                                  read; at the end,
///                                                                              its warps' sums
///
/// Registers: two products' accumulators take 128, one running while the other is worked on; what a
/// thread sums up takes 64 (pass 1) or 60 (pass 2). So four heads a block; eight are two groups,
/// whose blocks read the same keys at about the same time, the second from L2.
template <typename Element_, int kHeadDim_>
struct VerticalSlashTraits {
  using Element = Element_;
  static constexpr int kHeadDim = kHeadDim_;
  static_assert(kHeadDim % 16 == 0);
  static constexpr int kSteps = kHeadDim / 16;
  static constexpr int kPanels = (kHeadDim - 1) / kPanelDims + 1;

  static constexpr int kGroupHeads = 4;
  static constexpr int kThreads = (kGroupHeads / kWarpgroupHeads + 1) * device::kWarpgroupThreads;
  static constexpr int kProducerRegisters = 24;
  static constexpr int kConsumerRegisters = 240;

  // 8 KiB a panel: 64 KiB in flight at 64 and 256 dims, 96 KiB at others. Two stages are the least
  // that two products need; at 256 dims, four heads' queries leave no room for a third.
  static constexpr int kStages = kPanels == 1 ? 8 : kPanels == 2 ? 6 : kPanels == 3 ? 4 : 2;

  using Keys = OperandTile<Element, kBlock, kPanels>;
  using Queries = OperandTile<Element, kWarpgroupHeads * kBlock, kPanels>;

  struct Buffers {
    Keys keys[kStages];
    arch::Mbarrier full[kStages];
    arch::Mbarrier empty[kStages];
  };
};

MINF_HOST_DEVICE constexpr int num_warpgroups(int num_heads) {
  return (num_heads - 1) / kWarpgroupHeads + 1;
}

/// Shared memory of a block: Buffers, then what each consumer warpgroup has for itself.
template <typename Traits, typename Own>
constexpr std::size_t score_shared_bytes(int num_heads) {
  using Buffers = typename Traits::Buffers;
  static_assert(sizeof(Buffers) % alignof(Own) == 0);
  static_assert(sizeof(Buffers) + num_warpgroups(Traits::kGroupHeads) * sizeof(Own) <= 227 * 1024);
  return sizeof(Buffers) + static_cast<std::size_t>(num_warpgroups(num_heads)) * sizeof(Own);
}

template <typename Own, typename Buffers>
__device__ inline Own& own_storage(Buffers& buffers, int warpgroup) {
  return *(reinterpret_cast<Own*>(&buffers + 1) + warpgroup);
}

/// The four ranges of a chunk's keys. The last chunk's go past the sequence's end: zeros, masked.
struct KeyRanges {
  int32_t chunk;
  int32_t first_key;
  int32_t num_keys;   // Of each range.
  int32_t num_tiles;  // A multiple of 4.

  static constexpr int32_t kChunkStep = kWarpgroupWarps * kRangeKeys;

  __device__ explicit KeyRanges(const cuda::ScoreArgs& args)
      : chunk(static_cast<int32_t>(blockIdx.x)), first_key(chunk * args.chunk_keys) {
    const int32_t left = args.seqlen_k - first_key;
    const int32_t all_keys = left < args.chunk_keys ? left : args.chunk_keys;
    num_keys = ((all_keys - 1) / kChunkStep + 1) * kRangeKeys;
    num_tiles = num_keys / kStepKeys;
  }

  __device__ int32_t first_of(int warp) const { return first_key + warp * num_keys; }
};

/// By a shuffle, so that the compiler sees that all lanes have the same: operand descriptors take
/// uniform registers then, not the accumulators'.
__device__ inline int warpgroup_index() {
  return __shfl_sync(device::kFullWarp, static_cast<int>(threadIdx.x) / device::kWarpgroupThreads,
                     0);
}

/// What a consumer thread works on: rows of its warpgroup's heads, against its warp's range of
/// keys.
struct Consumer {
  int warpgroup;
  int thread;     // Of the warpgroup.
  int warp;       // Of the warpgroup.
  int num_heads;  // Of the warpgroup: 2, or 1; 0 or less past the group's heads.

  __device__ explicit Consumer(const cuda::ScoreGroup& group)
      : warpgroup(warpgroup_index()),
        thread(static_cast<int>(threadIdx.x) % device::kWarpgroupThreads),
        warp(thread / device::kWarpThreads),
        num_heads(group.num_heads - warpgroup * kWarpgroupHeads) {
    if (num_heads > kWarpgroupHeads) num_heads = kWarpgroupHeads;
  }

  /// The warpgroup's i-th head, as a head of the group. Where there is no second one: the first.
  __device__ int slot_of(int i) const {
    return warpgroup * kWarpgroupHeads + (i < num_heads ? i : 0);
  }
};

}  // namespace minference::sm90::vertical_slash
