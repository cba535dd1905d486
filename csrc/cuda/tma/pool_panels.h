// Pooled keys as wgmma reads them from shared memory: a tile of slots is one part of high halves
// and one of low halves, each copied by one bulk copy. A part holds panels of kPanelDims dims one
// after another, with a swizzled row per slot.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/swizzle.h"
#include "cuda/common/pool_rows_kernel.h"

namespace minference::tma {

template <int kPaddedDim>
struct KeyPanels {
  /// 64 keys; 32 beyond 128 dims: a wgmma of 32 columns does not fill the tensor cores, but beside
  /// the 128 registers of queries of 256 dims no more fit.
  static constexpr int kTileKeys = kPaddedDim <= 128 ? 64 : 32;
  static constexpr arch::Swizzle kSwizzle =
      kPaddedDim % 64 == 0 ? arch::Swizzle::k128B : arch::Swizzle::k64B;
  static constexpr uint32_t kRowBytes = arch::swizzle_row_bytes(kSwizzle);
  static constexpr int kPanelDims = kRowBytes / 2;
  static constexpr uint32_t kPanelBytes = kTileKeys * kRowBytes;
  static constexpr uint32_t kPartBytes = kTileKeys * kPaddedDim * 2;
  static_assert(kPaddedDim % kPanelDims == 0 && cuda::kPoolPadding % kTileKeys == 0);
};

template <typename Element, int kPaddedDim_>
struct PoolPanelTraits : cuda::PoolTraits<Element, kPaddedDim_> {
  static constexpr bool kKeysInPanels = true;
  using Panels = KeyPanels<kPaddedDim_>;

  /// A lane's 8 dims are a 16-byte chunk of both parts.
  __device__ static void store_key(const cuda::SplitMeans& means, cuda::SplitFragment* pooled,
                                   int64_t slot) {
    const int first_dim = device::lane_index() * 8;
    if (first_dim >= kPaddedDim_) return;
    const auto row = static_cast<uint32_t>(slot % Panels::kTileKeys);
    const uint32_t offset =
        static_cast<uint32_t>(first_dim / Panels::kPanelDims) * Panels::kPanelBytes +
        arch::swizzle_offset(
            Panels::kSwizzle,
            row * Panels::kRowBytes + static_cast<uint32_t>(first_dim % Panels::kPanelDims) * 2);
    char* tile = reinterpret_cast<char*>(pooled) +
                 slot / Panels::kTileKeys * int64_t{2 * Panels::kPartBytes};
    *reinterpret_cast<device::RowPiece*>(tile + offset) = {
        {means.high[0], means.high[1], means.high[2], means.high[3]}};
    *reinterpret_cast<device::RowPiece*>(tile + Panels::kPartBytes + offset) = {
        {means.low[0], means.low[1], means.low[2], means.low[3]}};
  }
};

}  // namespace minference::tma
