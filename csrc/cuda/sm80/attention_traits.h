// Stage 3 on sm80: compile-time shape of a thread block, and its shared memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/pattern.h"
#include "cuda/arch/element.h"
#include "cuda/device/rows.h"
#include "cuda/device/tile_walk.h"

namespace minference::sm80 {

/// A block computes a row tile, two row blocks or one, against tiles of 64 keys. They pass through
/// shared memory in fills (stages of the ring); a warp takes a fill's keys in steps of 32.
///
/// Rows of a warp. A warp reads every key and value from shared memory once for its rows. At 128
/// dims a step is 16 KiB for 0.26 MFLOP with 16 rows: at 128 bytes a cycle that is 2048 FLOP a
/// cycle and multiprocessor, the full rate of mma.sync on sm_80, but less than on sm_90 (some
/// 2700). With 32 rows it is 4096, or 2731 if q is read again with every step, 8 KiB more. Beyond
/// 128 dims the sums of 32 rows alone would pass 255 registers.
///
/// Registers of a thread, of 255: some 60 more are addresses, state and operands in flight.
///
///     dims      rows    out     scores    P     q held, of        statistics
///     64        32      64      32        32    32 of 32          8
///     96        32      96      32        32    24 of 48          8
///     128       32      128     32        32    0 of 64           8
///     192       16      96      16        16    48 of 48          4
///     192/128   16      64      16        16    48 of 48          4
///     256       16      128     16        8     32 of 64          4
///
/// (Scores of both steps at once, for one reading of q, spilled 264 bytes at 128 dims.)
///
/// A single row block on 32-row warps: two warps have its rows; two more have the same rows and the
/// other step of every fill; their sums are joined at the end. So both kinds of row tile run the
/// same code with the same traffic per product, and differ in what is loaded: see kPairShareOf4.
///
/// Shared memory, KiB: q, and kFills buffers through which keys and values pass alternately (K0 V0
/// K1 V1 ...); one is used, the others are in flight. Blocks per multiprocessor (sm_80 86 89 90),
/// at most 2 because of registers:
///
///     dims         q     fills        in all     blocks
///     64           16    4 x 8        49         2 2 2 2
///     96           24    4 x 12       73         2 1 1 2
///     128          32    3 x 16       81         2 1 1 2
///     192, 192/128 24    3 x 24       97         1 1 1 2
///     256          32    4 x 16       97         1 1 1 2    in fills of 32 keys
template <typename Element_, int kDim_, int kDimV_>
struct AttentionTraits {
  using Element = Element_;
  static_assert(arch::kIsElement<Element> && kDimV_ <= kDim_);
  static constexpr int kDim = kDim_;    // Of q and k, padded.
  static constexpr int kDimV = kDimV_;  // Of v and out, padded.

  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * 32;
  using Group = device::BlockGroup<kThreads>;
  static constexpr int kMinBlocks = 2;

  static constexpr int kRowMats =
      kDim <= 128 ? 2 : 1;  // Row operands of mma.m16n8k16 that a warp has.
  static constexpr int kWarpRows = 16 * kRowMats;
  static constexpr int kRows = kWarps * kWarpRows;
  static constexpr bool kPairs = kRows == 2 * kBlock;
  static_assert(kPairs || kRows == kBlock);

  static constexpr int kFillKeys = kDim <= 192 ? 64 : 32;
  static constexpr int kStepKeys = 32;  // Keys whose scores a warp has at a time.
  static constexpr int kFillSteps = kFillKeys / kStepKeys;
  static constexpr int kFills = kDim == 128 || kDim == 192 ? 3 : 4;
  /// Operands of 16 dims of q that stay in registers.
  static constexpr int kHeldSteps = kDim == 64    ? 4
                                    : kDim == 96  ? 3
                                    : kDim == 128 ? 0
                                    : kDim == 192 ? 12
                                                  : 8;

  using QueryRows = device::SwizzledRows<kDim>;
  using ValueRows = device::SwizzledRows<kDimV>;

  struct SharedStorage {
    alignas(128) Element query[kRows * kDim];  // Then the rows of out.
    alignas(128) Element fills[kFills][kFillKeys * kDim];
    device::TileQueue<> queue;
    int64_t next_item;
  };
  // A tile that is computed by halves of the keys needs space for one half's sums.
  static_assert(!kPairs || sizeof(SharedStorage::fills) >= 2 * 32 * (kDimV + 16) * sizeof(float));
};

}  // namespace minference::sm80
