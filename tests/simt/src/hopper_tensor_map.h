// Tensor maps as the emulation encodes them, and the boxes they describe, chunk by chunk.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace simt::engine {

inline constexpr int kMaxTensorRank = 5;

/// What the 128 bytes of a CUtensorMap hold.
struct TensorMap {
  uint64_t tag = 0;       // Distinguishes a map from other bytes.
  uint64_t checksum = 0;  // Over all that follows.
  uint64_t base = 0;
  std::array<uint64_t, kMaxTensorRank - 1> stride_bytes{};  // Dimensions 1 and up.
  std::array<uint32_t, kMaxTensorRank> last{};              // Sizes minus one: sizes go to 2^32.
  std::array<uint8_t, kMaxTensorRank> box_last{};           // Box sizes minus one: these go to 256.
  uint8_t rank = 0;
  uint8_t element_bytes = 0;
  uint8_t swizzle = 0;  // CUtensorMapSwizzle.

  uint32_t box(int dimension) const { return box_last[static_cast<std::size_t>(dimension)] + 1U; }
  uint32_t row_bytes() const { return box(0) * element_bytes; }
  uint32_t box_bytes() const;

  /// 16, 32, 64 or 128: the span within which 16-byte chunks are permuted.
  uint32_t swizzle_bytes() const { return 16U << swizzle; }

  /// Where the byte at `address` of an unswizzled box lies. Address bits from 4 up, within the
  /// swizzle's row, are XORed with the same number of bits from bit 7 up.
  std::size_t swizzled(std::size_t address) const {
    return address ^ ((address >> 3) & (swizzle_bytes() - 16));
  }

  uint64_t computed_checksum() const;
};
static_assert(sizeof(TensorMap) <= sizeof(CUtensorMap));

/// The map in these bytes; false if they are not one.
bool decode_tensor_map(const CUtensorMap& bytes, TensorMap& map);

/// Bytes that lie together on both sides of a copy.
struct Piece {
  std::size_t shared_offset;
  uint64_t address;  // In global memory; 0 for bytes outside the tensor.
  std::size_t bytes;
};

/// Appends the pieces of the box at these coordinates, whose first byte is at `shared_offset`. A
/// piece has at most 16 bytes, the unit of swizzling.
void append_pieces(const TensorMap& map, const int32_t* coordinates, std::size_t shared_offset,
                   std::vector<Piece>& pieces);

}  // namespace simt::engine
