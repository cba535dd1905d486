// Rows of 16-bit elements: the 16-byte vectors that one instruction loads, stores or copies; rows
// in shared memory without padding; operands of mma.m16n8k16 loaded from them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>

#include "core/host_device.h"
#include "cuda/arch/matrix.h"
#include "cuda/device/thread_group.h"

namespace minference::device {

/// A 16-byte vector: 8 elements of 16 bits.
struct alignas(16) RowPiece {
  uint32_t words[4];
};

inline constexpr int kPieceBytes = sizeof(RowPiece);
inline constexpr int kPieceElements = kPieceBytes / 2;

// ---- Swizzled rows ------------------------------------------------------------------------------
//
// Rows of 16-bit elements in shared memory, without padding. The 16-byte vectors of a row are
// permuted so that neither ldmatrix (one vector from each of eight rows) nor a row-wise copy has a
// bank conflict, and a tile takes exactly the bytes it holds.
//
// The place of a vector is an exclusive-or, so the place of any other vector of the row differs
// from it by a constant exclusive-or: kernels keep one address per lane. (Left to itself the
// compiler keeps one per vector, outside of all loops, and spills them.)
//
// Source: the XOR swizzle of CUTLASS's shared-memory layouts.

/// Rows of kDim elements, a multiple of 32. The first row is aligned to 128 bytes.
template <int kDim>
struct SwizzledRows {
  static_assert(kDim % 32 == 0);
  static constexpr int kPieces = kDim / kPieceElements;
  static constexpr int kRowBytes = kPieces * kPieceBytes;
  /// Vectors that change places with each other: those of 128 aligned bytes, or of 64 if rows are
  /// not multiples of 128 bytes.
  static constexpr int kGroup = kPieces % 8 == 0 ? 8 : 4;

  /// Threads that copy a row together, one vector each. At 96 and 192 dims a quarter of them idle:
  /// dividing by 12 or 24 would take longer.
  static constexpr int kRowThreads = static_cast<int>(std::bit_ceil(unsigned{kPieces}));

  /// The value that a row's vector numbers are exclusive-or'ed with. Vectors of one number in eight
  /// rows must lie in the eight 16-byte places of 128 bytes. Rows of whole multiples of 128 bytes
  /// begin at the same place, so the row decides; rows of 192 bytes begin at two places
  /// alternately, so the pair of rows does.
  MINF_HOST_DEVICE static constexpr int key_of(int row) {
    return kGroup == 8 ? row % 8 : row / 2 % 4;
  }

  /// Byte offset of a vector of a row.
  MINF_HOST_DEVICE static constexpr uint32_t offset(int row, int piece) {
    return static_cast<uint32_t>(row * kRowBytes + (piece ^ key_of(row)) * kPieceBytes);
  }

  /// From the address of vector p to that of vector p + `pieces`, if the two numbers have no common
  /// bit.
  MINF_HOST_DEVICE static constexpr uint32_t add_pieces(uint32_t address, int pieces) {
    return (address ^ static_cast<uint32_t>(pieces % kGroup * kPieceBytes)) +
           static_cast<uint32_t>(pieces / kGroup * kGroup * kPieceBytes);
  }

  /// From the address of a vector in row r to that in row r + `rows`. `rows` is a multiple of 8, or
  /// a multiple of 4 if r % 8 < 4 and groups are of 8.
  MINF_HOST_DEVICE static constexpr uint32_t add_rows(uint32_t address, int rows) {
    return (address ^ static_cast<uint32_t>(rows % 8 * kPieceBytes)) +
           static_cast<uint32_t>(rows * kRowBytes);
  }
};

// ---- Fragments ----------------------------------------------------------------------------------
//
// Operand fragments of mma.m16n8k16 from swizzled rows in shared memory (lane = 4 g + t, see
// arch/matrix.h). Whole warps call these. Each lane passes the address of its own place:
// row_offset() for A and transposed B, key_offset() for B.

/// Offset of a lane's place in rows that are loaded along dims as A, or across them as B.
template <typename Rows>
__device__ inline uint32_t row_offset() {
  return Rows::offset(lane_index() % 16, lane_index() / 16);
}

/// The same in rows that are loaded along dims as B.
template <typename Rows>
__device__ inline uint32_t key_offset() {
  return Rows::offset(lane_index() / 16 * 8 + lane_index() % 8, lane_index() / 8 % 2);
}

/// A: rows [first, first + 16), dims [16 k, 16 k + 16). first: a multiple of 16.
template <typename Rows>
__device__ inline void load_a(uint32_t (&a)[4], uint32_t address, int first, int k) {
  arch::ldmatrix_x4(a, Rows::add_rows(Rows::add_pieces(address, 2 * k), first));
}

/// The four words that ldmatrix gives a lane, as two B operands.
__device__ inline void split_columns(uint32_t (&b)[2][2], const uint32_t (&words)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) b[i / 2][i % 2] = words[i];
}

/// B, dims along k: rows [first, first + 16) are the 8 columns each of b[0], b[1].
template <typename Rows>
__device__ inline void load_b(uint32_t (&b)[2][2], uint32_t address, int first, int k) {
  uint32_t words[4];
  arch::ldmatrix_x4(words, Rows::add_rows(Rows::add_pieces(address, 2 * k), first));
  split_columns(b, words);
}

/// B, rows along k: dims [16 n, 16 n + 16) of rows [first, first + 16) are the 8 columns each of
/// b[0], b[1].
template <typename Rows>
__device__ inline void load_b_transposed(uint32_t (&b)[2][2], uint32_t address, int first, int n) {
  uint32_t words[4];
  arch::ldmatrix_x4_transposed(words, Rows::add_rows(Rows::add_pieces(address, 2 * n), first));
  split_columns(b, words);
}

}  // namespace minference::device
