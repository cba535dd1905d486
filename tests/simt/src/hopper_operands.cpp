// Operands of wgmma: see hopper_operands.h.
// SPDX-License-Identifier: Apache-2.0
#include "hopper_operands.h"

namespace simt::engine {
namespace {

uint32_t field(uint64_t bits, int first, int count) {
  return static_cast<uint32_t>(bits >> first) & ((1U << count) - 1);
}

constexpr uint64_t kReserved =
    uint64_t{3} << 14 | uint64_t{3} << 30 | uint64_t{7} << 46 | uint64_t{0x3ff} << 52;

/// Permutes chunks within a row by the number of its 128-byte line, counted from the pattern's
/// start.
uint32_t swizzled(const MatrixDescriptor& descriptor, uint32_t address) {
  const uint32_t line = (address >> 7) - descriptor.base_offset;
  return address ^ ((line << 4) & (descriptor.row_bytes - 16));
}

}  // namespace

MatrixDescriptor::MatrixDescriptor(uint64_t bits)
    : start(field(bits, 0, 14) << 4),
      leading(field(bits, 16, 14) << 4),
      stride(field(bits, 32, 14) << 4),
      base_offset(field(bits, 49, 3)),
      row_bytes(16U << ((4 - field(bits, 62, 2)) & 3)),  // 0: none, 1: 128, 2: 64, 3: 32.
      reserved_bits_clear((bits & kReserved) == 0) {}

uint32_t chunk_address(const MatrixDescriptor& d, bool mn_major, uint32_t mn, uint32_t k) {
  const uint32_t row = d.row_bytes;
  uint32_t address = d.start;
  if (row == 16) {  // 8x8 matrices of 128 bytes; the descriptor gives their strides.
    address += mn / 8 * d.stride + k / 8 * d.leading + (mn_major ? k % 8 : mn % 8) * 16;
    return address;
  }
  if (mn_major) {
    const uint32_t elements = row / 2;
    address += mn / elements * d.leading + k / 8 * d.stride + k % 8 * row + mn % elements * 2;
  } else {
    address += mn / 8 * d.stride + mn % 8 * row + k * 2;
  }
  return swizzled(d, address);
}

const char* descriptor_error(const MatrixDescriptor& d, bool mn_major) {
  if (!d.reserved_bits_clear) return "has reserved bits set";
  if (d.row_bytes == 16) return nullptr;
  const uint32_t start_in_row = d.start % d.row_bytes;
  if (mn_major && start_in_row != 0) return "starts within a row";
  if (!mn_major && start_in_row + 32 > d.row_bytes) return "runs past the end of its rows";
  return nullptr;
}

}  // namespace simt::engine
