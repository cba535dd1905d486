// Stage 3 on sm80: compile-time shape of a thread block, and its shared memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/pattern.h"
#include "cuda/arch/element.h"
#include "cuda/device/swizzled_rows.h"
#include "cuda/sm80/attention_tiles.h"

namespace minference::sm80 {

/// A block computes a row tile against tiles of 64 keys: two row blocks, or one.
///
/// Rows of a warp. A warp reads every key it multiplies from shared memory, once per 16 * kRowMats
/// rows. With 16 rows a step of 64 keys at 128 dims reads 32 KiB for 0.52 MFLOP: at 128 bytes a
/// cycle that is 2048 FLOP a cycle and multiprocessor, all that mma.sync makes on sm_80, and less
/// than it makes on sm_90 (some 2500). With 32 rows it is 4096, less what q takes if it is read
/// again: 3277. Beyond 128 dims the sums of 32 rows alone would pass 255 registers.
///
/// Registers of a thread (of 255), the operands of products aside:
///
///     dims      rows    out     scores       q
///     64        32      64      64           32
///     96        32      96      64           48
///     128       32      128     64           read again from shared memory: 64 more would spill
///     192       16      96      32           48
///     192/128   16      64      32           48
///     256       16      128     16           64
///
/// One row block alone on 32-row warps: two warps have its rows, two more the same rows and the
/// other half of every tile's keys; their sums meet at the end. So both kinds of row tile run the
/// same code with the same traffic per product, and differ in how much is loaded: see kPairShare.
///
/// Shared memory, KiB: q, and kFills buffers that keys and values pass in turn (K0 V0 K1 V1 ...);
/// one is used, the others are on their way. Blocks per multiprocessor (sm_80 86 89 90), at most 2
/// by registers:
///
///     dims         q     fills        in all     blocks
///     64           16    4 x 8        48         2 2 2 2
///     96           24    4 x 12       72         2 1 1 2
///     128          32    3 x 16       80         2 1 1 2
///     192, 192/128 24    3 x 24       96         1 1 1 2
///     256          32    4 x 16       96         1 1 1 2    in steps of 32 keys
template <typename Element_, int kDim_, int kDimV_>
struct AttentionTraits {
  using Element = Element_;
  static_assert(arch::kIsElement<Element> && kDimV_ <= kDim_);
  static constexpr int kDim = kDim_;    // Of q and k, padded.
  static constexpr int kDimV = kDimV_;  // Of v and out, padded.

  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kMinBlocks = 2;

  static constexpr int kRowMats = kDim <= 128 ? 2 : 1;  // Row operands of mma.m16n8k16 a warp has.
  static constexpr int kWarpRows = 16 * kRowMats;
  static constexpr int kRows = kWarps * kWarpRows;
  static constexpr bool kPairs = kRows == 2 * kBlock;
  static_assert(kPairs || kRows == kBlock);

  static constexpr int kFillKeys = kDim <= 192 ? 64 : 32;
  static constexpr int kStepKeys = 32;  // Whose scores a warp has at a time.
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
    TileQueue queue;
    int64_t next_item;
  };
  // Of a tile that is computed by halves of the keys, one half's sums.
  static_assert(!kPairs || sizeof(SharedStorage::fills) >= 2 * 32 * (kDimV + 16) * sizeof(float));
};

}  // namespace minference::sm80
