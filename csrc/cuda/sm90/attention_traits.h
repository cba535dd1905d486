// Stage 3 on sm90: compile-time shape of a thread block, and its shared memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/pattern.h"
#include "cuda/arch/barrier.h"
#include "cuda/arch/element.h"
#include "cuda/arch/swizzle.h"
#include "cuda/tma/attention_load.h"

namespace minference::sm90 {

using tma::kConsumers;
using tma::StageTiles;

/// Numbers of the named barriers, in addition to tma::kTileProducerBarrier.
enum NamedBarrier : int {
  kWarpSchedulerBarrier = 2,  // + warpgroup: it may issue products (attention_kernel.h).
  kConsumerBarrier = 4,       // + warpgroup: all its warps have arrived.
};

/// A block computes two row blocks against stages of 128 keys (64 beyond 128 dims), with three
/// warpgroups: one that loads, two that each multiply the 64 rows of a row block.
///
/// Products. wgmma with both operands in shared memory reads, for 64 rows and N keys of 16 dims,
/// 2 KiB + 32 N bytes in N / 2 cycles: 96 bytes a cycle with N = 128, all of the 128 that shared
/// memory has with N = 64. So two tiles that a warpgroup attends both are multiplied as one of 128
/// keys; they lie one after the other in every panel. P is multiplied from registers: 64 bytes a
/// cycle.
///
/// Keys and values. A joined tile is 32 KiB for 4.19 MFLOP at 128 dims: 1024 cycles of tensor
/// cores, 1365 cycles of L2 at 24 bytes a cycle (5.5 TB/s, docs/cuda.md). A tile that one of the
/// row blocks attends alone costs the same load for 512 cycles.
///
/// Registers of a consumer thread, of kConsumerRegisters: scores 64 (32), P half as many, sums of O
/// 32 to 128; the rest are statistics, addresses and masks. The producer warpgroup gets enough to
/// find tiles without spilling: (65536 / 128 - 2 kConsumerRegisters) at most. FlashMLA's sparse
/// prefill divides 384 threads' registers the same way.
///
/// Shared memory, KiB, of 227:
///
///     dims      panels    q         K          V          in all
///     64        64        2 x 16    4 x 16     4 x 16     160
///     96        32        2 x 24    3 x 24     3 x 24     192
///     128       64        2 x 32    3 x 32     2 x 32     224
///     192/128   64        1 x 48    4 x 24     4 x 16     208
///     192       64        1 x 48    4 x 24     3 x 24     216
///     256       64        1 x 64    3 x 32     2 x 32     224
///
/// Two buffers of q: the next item's queries and first keys land while the previous item's last
/// products and stores are in flight. K has more stages than V: the keys of a stage are multiplied
/// together with the values of the previous one.
///
/// Not 96 dims in panels of 64: the second would be half empty, and MN-major wgmma reads panels
/// whole.
template <typename Element_, int kDim_, int kDimV_>
struct AttentionTraits {
  using Element = Element_;
  static_assert(arch::kIsElement<Element> && kDimV_ <= kDim_);
  static constexpr int kDim = kDim_;    // Of q and k, padded.
  static constexpr int kDimV = kDimV_;  // Of v and out, padded.

  static constexpr int kThreads = (1 + kConsumers) * device::kWarpgroupThreads;
  static constexpr int kConsumerRegisters = 216;
  static constexpr int kProducerRegisters = 72;

  static constexpr int kPanelDims = kDim % 64 == 0 && kDimV % 64 == 0 ? 64 : 32;
  static constexpr arch::Swizzle kSwizzle =
      kPanelDims == 64 ? arch::Swizzle::k128B : arch::Swizzle::k64B;
  static constexpr uint32_t kRowBytes = arch::swizzle_row_bytes(kSwizzle);
  static_assert(kRowBytes == kPanelDims * sizeof(Element));
  static constexpr int kPanels = kDim / kPanelDims;
  static constexpr int kValuePanels = kDimV / kPanelDims;

  static constexpr int kStageTiles = kDim <= 128 ? 2 : 1;
  static constexpr int kStageKeys = kStageTiles * kBlock;
  static constexpr int kQueryStages = kDim <= 128 ? 2 : 1;
  static constexpr int kKeyStages = kDim == 64 || kDim == 192 ? 4 : 3;
  static constexpr int kValueStages = kDim == 64 || (kDim == 192 && kDimV == 128) ? 4
                                      : kDim == 96 || kDim == 192                 ? 3
                                                                                  : 2;

  using QueryTile = Element[kPanels][kBlock][kPanelDims];
  using OutTile = Element[kValuePanels][kBlock][kPanelDims];

  struct SharedStorage {
    // The queries of each row block; then its rows of out.
    alignas(1024) QueryTile query[kQueryStages][kConsumers];
    alignas(1024) Element keys[kKeyStages][kPanels][kStageKeys][kPanelDims];
    alignas(1024) Element values[kValueStages][kValuePanels][kStageKeys][kPanelDims];

    StageTiles stage_tiles[kKeyStages];
    device::RowTile items[kQueryStages];  // num_row_blocks == 0: there are no more.
    device::TileQueue<tma::kTileBatches> queue;
    tma::TileBatch batches[tma::kTileBatches];

    arch::Mbarrier query_full[kQueryStages], query_empty[kQueryStages];
    arch::Mbarrier key_full[kKeyStages], key_empty[kKeyStages];
    arch::Mbarrier value_full[kValueStages], value_empty[kValueStages];
    arch::Mbarrier batch_full[tma::kTileBatches], batch_empty[tma::kTileBatches];
  };
  static_assert(sizeof(OutTile) <= sizeof(QueryTile));
  static_assert(sizeof(SharedStorage) <= 227 * 1024);
};

}  // namespace minference::sm90
