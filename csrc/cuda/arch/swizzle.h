// How bulk tensor copies and wgmma permute the 16-byte chunks within a row of 32, 64 or 128 bytes
// (sm_90), so that eight rows' chunks of one column lie in different banks. It is a permutation of
// address bits: the tile's first byte must lie at a multiple of the pattern's length (8 rows) for
// offsets within the tile to mean the same as addresses.
//
//     mode    row      pattern    chunk number within the row, exclusive-or
//     k32B    32 B     256 B      bit 4     with address bit 7
//     k64B    64 B     512 B      bits 4-5  with address bits 7-8
//     k128B   128 B    1024 B     bits 4-6  with address bits 7-9
//
// PTX ISA: Tensor swizzling modes; wgmma, Matrix layouts in shared memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace minference::arch {

/// The values are those of CUtensorMapSwizzle.
enum class Swizzle : uint32_t { kNone = 0, k32B = 1, k64B = 2, k128B = 3 };

/// Bytes of a row; without a swizzle, of the 16-byte chunk that wgmma then treats as a row.
MINF_HOST_DEVICE constexpr uint32_t swizzle_row_bytes(Swizzle swizzle) {
  return 16u << static_cast<uint32_t>(swizzle);
}

/// Where the byte of unswizzled offset `offset` lies, as an offset from an aligned tile's first
/// byte.
MINF_HOST_DEVICE constexpr uint32_t swizzle_offset(Swizzle swizzle, uint32_t offset) {
  return offset ^ ((offset >> 3) & (swizzle_row_bytes(swizzle) - 16));
}

}  // namespace minference::arch
