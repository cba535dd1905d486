// Rows of 16-bit elements in shared memory, without padding: the 16-byte pieces of a row are
// permuted so that neither ldmatrix (eight rows, one piece each) nor a row-wise copy meets a bank
// twice, and a tile takes exactly the bytes it holds.
//
// Source: the XOR swizzle of CUTLASS's shared-memory layouts.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>

#include "core/host_device.h"

namespace minference::device {

inline constexpr int kPieceBytes = 16;
inline constexpr int kElementsPerPiece = 8;

/// Rows of kDim elements, a multiple of 32.
template <int kDim>
struct SwizzledRows {
  static_assert(kDim % 32 == 0);
  static constexpr int kPieces = kDim / kElementsPerPiece;

  /// Threads that copy a row together, a piece each. At 96 and 192 dims a quarter of them idle:
  /// dividing by 12 or 24 would take longer.
  static constexpr int kRowThreads = static_cast<int>(std::bit_ceil(unsigned{kPieces}));

  /// What a row's piece numbers are exclusive-or'ed with. Eight rows of a piece number lie in the
  /// eight 16-byte places of 128 bytes: rows of whole multiples of 128 bytes begin at the same
  /// place, so the row decides; rows of 192 bytes begin at two places in turn, so pairs of them do.
  MINF_HOST_DEVICE static constexpr int key_of(int row) {
    return kPieces % 8 == 0 ? row % 8 : row / 2 % 4;
  }

  /// Element offset of a piece of a row.
  MINF_HOST_DEVICE static constexpr int offset(int row, int piece) {
    return row * kDim + (piece ^ key_of(row)) * kElementsPerPiece;
  }
};

}  // namespace minference::device
