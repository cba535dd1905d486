// Shared memory: the block's storage struct, the 32-bit addresses that instructions take, and the
// swizzles of bulk tensor copies and wgmma.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/host_device.h"
#include "cuda/arch/emulation.h"

namespace minference::arch {

/// Address in the shared window. PTX ISA: cvta.to.shared.
__device__ inline uint32_t shared_address(const void* pointer) {
#if defined(MINF_SIMT)
  return simt::shared_address(pointer);
#else
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
#endif
}

/// The launch's dynamic shared memory as a Storage. Uninitialised. sizeof(Storage) is what the
/// launch must ask for.
template <typename Storage>
__device__ inline Storage& shared_storage() {
#if defined(MINF_SIMT)
  return *static_cast<Storage*>(simt::dynamic_shared(sizeof(Storage), alignof(Storage)));
#else
  // Swizzles are of addresses: another place would give other results. Declared aligned, the array
  // is placed so, behind the system's 1 KiB and static shared memory: ptxas fixes its offset. No
  // test of the address: the compiler takes the declaration at its word and would drop it.
  constexpr std::size_t kAlignment = 1024;
  static_assert(alignof(Storage) <= kAlignment);
  extern __shared__ __align__(kAlignment) unsigned char minf_dynamic_shared[];
  return *reinterpret_cast<Storage*>(minf_dynamic_shared);
#endif
}

// ---- Swizzles (sm_90) ---------------------------------------------------------------------------
//
// Bulk tensor copies and wgmma permute the 16-byte chunks within a row of 32, 64 or 128 bytes, so
// that eight rows' chunks of one column lie in different banks. It is a permutation of address
// bits: the tile's first byte must lie at a multiple of the pattern's length (8 rows) for offsets
// within the tile to mean the same as addresses.
//
//     mode    row      pattern    chunk number within the row, exclusive-or
//     k32B    32 B     256 B      bit 4     with address bit 7
//     k64B    64 B     512 B      bits 4-5  with address bits 7-8
//     k128B   128 B    1024 B     bits 4-6  with address bits 7-9
//
// PTX ISA: Tensor swizzling modes; wgmma, Matrix layouts in shared memory.

/// Values are CUtensorMapSwizzle's.
enum class Swizzle : uint32_t { kNone = 0, k32B = 1, k64B = 2, k128B = 3 };

/// Bytes of a row; without a swizzle, of the 16-byte chunk that wgmma then takes for a row.
MINF_HOST_DEVICE constexpr uint32_t swizzle_row_bytes(Swizzle swizzle) {
  return 16u << static_cast<uint32_t>(swizzle);
}

/// Offset from an aligned tile's first byte at which the byte of unswizzled offset `offset` lies.
MINF_HOST_DEVICE constexpr uint32_t swizzle_offset(Swizzle swizzle, uint32_t offset) {
  return offset ^ ((offset >> 3) & (swizzle_row_bytes(swizzle) - 16));
}

}  // namespace minference::arch
