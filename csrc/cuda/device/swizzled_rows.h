// Rows of 16-bit elements in shared memory, without padding: the 16-byte pieces of a row are
// permuted so that neither ldmatrix (eight rows, one piece each) nor a row-wise copy meets a bank
// twice, and a tile takes exactly the bytes it holds.
//
// A piece's place is an exclusive-or, so that of any other piece of the row is another one, by a
// constant: kernels keep one address per lane. (Left to itself the compiler keeps one per piece,
// outside of all loops, and spills them.)
//
// Source: the XOR swizzle of CUTLASS's shared-memory layouts.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>

#include "core/host_device.h"
#include "cuda/device/row_piece.h"

namespace minference::device {

/// Rows of kDim elements, a multiple of 32. The first row is aligned to 128 bytes.
template <int kDim>
struct SwizzledRows {
  static_assert(kDim % 32 == 0);
  static constexpr int kPieces = kDim / kPieceElements;
  static constexpr int kRowBytes = kPieces * kPieceBytes;
  /// Pieces that change places with each other: those of 128 aligned bytes, or of 64 where rows are
  /// not multiples of 128 bytes.
  static constexpr int kGroup = kPieces % 8 == 0 ? 8 : 4;

  /// Threads that copy a row together, a piece each. At 96 and 192 dims a quarter of them idle:
  /// dividing by 12 or 24 would take longer.
  static constexpr int kRowThreads = static_cast<int>(std::bit_ceil(unsigned{kPieces}));

  /// What a row's piece numbers are exclusive-or'ed with. Eight rows of one piece number lie in the
  /// eight 16-byte places of 128 bytes: whole multiples of 128 bytes begin at the same place, so
  /// the row decides; rows of 192 bytes begin at two places in turn, so pairs of rows do.
  MINF_HOST_DEVICE static constexpr int key_of(int row) {
    return kGroup == 8 ? row % 8 : row / 2 % 4;
  }

  /// Byte offset of a piece of a row.
  MINF_HOST_DEVICE static constexpr uint32_t offset(int row, int piece) {
    return static_cast<uint32_t>(row * kRowBytes + (piece ^ key_of(row)) * kPieceBytes);
  }

  /// From the address of piece p to that of piece p + `pieces`, where the two have no bit in
  /// common.
  MINF_HOST_DEVICE static constexpr uint32_t add_pieces(uint32_t address, int pieces) {
    return (address ^ static_cast<uint32_t>(pieces % kGroup * kPieceBytes)) +
           static_cast<uint32_t>(pieces / kGroup * kGroup * kPieceBytes);
  }

  /// From the address of a piece in row r to that in row r + `rows`: a multiple of 8, or one of 4
  /// where r % 8 < 4 and groups are of 8.
  MINF_HOST_DEVICE static constexpr uint32_t add_rows(uint32_t address, int rows) {
    return (address ^ static_cast<uint32_t>(rows % 8 * kPieceBytes)) +
           static_cast<uint32_t>(rows * kRowBytes);
  }
};

}  // namespace minference::device
