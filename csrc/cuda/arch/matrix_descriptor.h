// Shared memory operands of wgmma as 64-bit descriptors (sm_90a).
//
// Operands are read in rows of swizzle_row_bytes(), eight rows to a group. `E` below is the number
// of 16-bit elements in a row.
//     K-major [mn][k]: a row holds E consecutive k of one mn. `stride_bytes`: from a group of 8 mn
//         to the next. Of wider matrices, each E columns are a panel of their own; a wgmma's 16 k
//         lie in one. `leading_bytes` is used with Swizzle::kNone only: from the first 8 k to the
//         next.
//     MN-major [k][mn]: a row holds E consecutive mn of one k. `stride_bytes`: from a group of 8 k
//         to the next; `leading_bytes`: from a panel of E mn to the next. With Swizzle::kNone the
//         two change roles.
// PTX ISA: wgmma, Matrix-descriptor and Strides.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/shared.h"
#include "cuda/arch/swizzle.h"

namespace minference::arch {

/// Which index runs along a row.
enum class Major { kK, kMn };

struct MatrixDescriptor {
  uint64_t bits;
};

/// All sizes are multiples of 16 bytes below 2^18. The swizzle's pattern starts at a multiple of
/// its length, `start` anywhere in it: the k-th 16 columns of a K-major panel start 32 k bytes in.
__device__ inline MatrixDescriptor matrix_descriptor(const void* start, Swizzle swizzle,
                                                     uint32_t leading_bytes,
                                                     uint32_t stride_bytes) {
  const auto encode = [](uint32_t bytes) { return static_cast<uint64_t>((bytes & 0x3ffff) >> 4); };
  const auto mode = static_cast<uint64_t>((4 - static_cast<uint32_t>(swizzle)) & 3);
  return {encode(shared_address(start)) | encode(leading_bytes) << 16 | encode(stride_bytes) << 32 |
          mode << 62};
}

/// A K-major panel, rows of swizzle_row_bytes() one after another.
__device__ inline MatrixDescriptor k_major_descriptor(const void* start, Swizzle swizzle) {
  return matrix_descriptor(start, swizzle, /*leading_bytes=*/16, 8 * swizzle_row_bytes(swizzle));
}

/// MN-major panels of rows of swizzle_row_bytes(), `panel_bytes` from one panel to the next.
__device__ inline MatrixDescriptor mn_major_descriptor(const void* start, Swizzle swizzle,
                                                       uint32_t panel_bytes) {
  return matrix_descriptor(start, swizzle, panel_bytes, 8 * swizzle_row_bytes(swizzle));
}

/// The same operand, `bytes` (a multiple of 16) further on.
__device__ inline MatrixDescriptor advance(MatrixDescriptor descriptor, uint32_t bytes) {
  return {descriptor.bits + (bytes >> 4)};
}

}  // namespace minference::arch
