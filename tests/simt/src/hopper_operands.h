// Operands of wgmma in shared memory: 64-bit descriptors decoded, and read element by element where
// the documentation puts them.
// Source: PTX ISA, wgmma: matrix-descriptor format, strides, swizzling modes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace simt::engine {

/// A descriptor's fields, in bytes.
struct MatrixDescriptor {
  explicit MatrixDescriptor(uint64_t bits);

  uint32_t start;    // Address in the shared window.
  uint32_t leading;  // Strides between groups of rows: see chunk_address().
  uint32_t stride;
  uint32_t base_offset;  // Number, among 8, of the 128-byte line at which the pattern starts.
  uint32_t row_bytes;    // 16 without swizzle; 32, 64, 128.
  bool reserved_bits_clear;
};

/// Address of the first byte of eight 16-bit elements that lie together: if K-major, row mn,
/// columns k to k + 7; if MN-major, column k, rows mn to mn + 7.
uint32_t chunk_address(const MatrixDescriptor& descriptor, bool mn_major, uint32_t mn, uint32_t k);

/// Why no hardware takes this operand of `mn` rows and 16 columns; null if hardware does.
const char* descriptor_error(const MatrixDescriptor& descriptor, bool mn_major);

/// Calls visit(address, mn, k) for the chunks of rows [first, last).
template <typename Visit>
void for_each_chunk(const MatrixDescriptor& descriptor, bool mn_major, uint32_t first,
                    uint32_t last, const Visit& visit) {
  const uint32_t mn_step = mn_major ? 8 : 1;
  const uint32_t k_step = mn_major ? 1 : 8;
  for (uint32_t mn = first; mn < last; mn += mn_step) {
    for (uint32_t k = 0; k < 16; k += k_step) {
      visit(chunk_address(descriptor, mn_major, mn, k), mn, k);
    }
  }
}

}  // namespace simt::engine
