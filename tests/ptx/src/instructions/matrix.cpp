// ldmatrix, stmatrix (sections 9.7.14.5.15, 9.7.14.5.16): move matrices of 8 x 8 16-bit elements
// between shared memory and the lanes' registers. Lane 8 i + r has the address of row r of matrix
// i. Lane 4 g + t holds row g, columns 2 t and 2 t + 1, of each matrix or of its transpose.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <vector>

#include "decoder.h"
#include "instructions/instructions.h"
#include "instructions/warp_matrix.h"
#include "memory.h"
#include "state.h"

namespace ptxsim {
namespace {

constexpr u32 kRowBytes = 16;
constexpr u32 kRows = 8;
constexpr u32 kMatrixBytes = kRows * kRowBytes;  // Also the size of a register.

/// Operands of an ldmatrix or stmatrix.
struct Matrices {
  Address address;
  u32 count = 1;
  u32 offsets[4] = {};  // Offsets of the registers.
  bool transposed = false;

  u32 lanes() const { return count == 4 ? kAllLanes : (1u << (kRows * count)) - 1; }
};

using Row = u16 __attribute__((vector_size(16)));

/// Transposes by interleaving the rows of the two halves three times.
void transpose(u8* matrix) {
  Row rows[kRows], mixed[kRows];
  std::memcpy(rows, matrix, sizeof rows);
  for (u32 step = 0; step < 3; ++step) {
    for (u32 i = 0; i < kRows / 2; ++i) {
      const Row a = rows[i], b = rows[i + kRows / 2];
      mixed[2 * i] = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
      mixed[2 * i + 1] = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
    }
    std::memcpy(rows, mixed, sizeof rows);
  }
  std::memcpy(matrix, rows, sizeof rows);
}

void find_rows(Warp& warp, const Matrices& matrices, u8** rows) {
  u64 addresses[kWarpSize];
  for (u32 lane = 0; lane < kRows * matrices.count; ++lane) {
    addresses[lane] = matrices.address.of(warp, lane);
  }
  resolve(warp, matrices.lanes(), Space::kShared, addresses, kRowBytes, rows);
  if (options().count) count_matrix_rows(warp, addresses, matrices.count);
}

void load_matrices(Warp& warp, u32 lanes, const Matrices& matrices) {
  check_whole_warp(warp, lanes);
  u8* rows[kWarpSize];
  find_rows(warp, matrices, rows);
  for (u32 i = 0; i < matrices.count; ++i) {
    u8* const to = warp.registers + matrices.offsets[i];
    for (u32 r = 0; r < kRows; ++r) {
      std::memcpy(to + r * kRowBytes, rows[kRows * i + r], kRowBytes);
    }
    if (matrices.transposed) transpose(to);
  }
  if (options().check) note_generic_reads(warp, matrices.lanes(), rows, kRowBytes);
}

void store_matrices(Warp& warp, u32 lanes, const Matrices& matrices) {
  check_whole_warp(warp, lanes);
  u8* rows[kWarpSize];
  find_rows(warp, matrices, rows);
  for (u32 i = 0; i < matrices.count; ++i) {
    u8 matrix[kMatrixBytes];
    std::memcpy(matrix, warp.registers + matrices.offsets[i], sizeof matrix);
    if (matrices.transposed) transpose(matrix);
    for (u32 r = 0; r < kRows; ++r) {
      std::memcpy(rows[kRows * i + r], matrix + r * kRowBytes, kRowBytes);
    }
  }
  if (options().check) note_generic_writes(warp, matrices.lanes(), rows, kRowBytes);
  ++warp.cluster->events;
}

Matrices matrices_of(Decoder& decoder, const std::vector<Reg>& registers, std::size_t address) {
  Matrices matrices;
  matrices.count = decoder.has("x4") ? 4 : decoder.has("x2") ? 2 : 1;
  if (registers.size() != matrices.count) {
    decoder.fail("a vector of " + std::to_string(matrices.count) + " registers expected, not of " +
                 std::to_string(registers.size()));
  }
  for (u32 i = 0; i < matrices.count; ++i) matrices.offsets[i] = registers[i].offset;
  matrices.transposed = decoder.has("trans");
  matrices.address = decoder.address(address);
  return matrices;
}

}  // namespace

void decode_ldmatrix(Decoder& decoder) {
  decoder.expect_operands(2);
  const Matrices matrices = matrices_of(decoder, write_vector(decoder, 0, 4), 1);
  decoder.execute([=](Warp& warp, u32 lanes) { load_matrices(warp, lanes, matrices); },
                  Flow::kMeetWarp);
}

void decode_stmatrix(Decoder& decoder) {
  decoder.expect_operands(2);
  const Matrices matrices = matrices_of(decoder, read_vector(decoder, 1, 4), 0);
  decoder.execute([=](Warp& warp, u32 lanes) { store_matrices(warp, lanes, matrices); },
                  Flow::kMeetWarp);
}

}  // namespace ptxsim
