// Shared by matrix instructions: vector operands, and the check that all threads of the warp take
// part.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "decoder.h"
#include "state.h"

namespace ptxsim {

/// Fails if one of the warp's threads is missing or has exited.
inline void check_whole_warp(const Warp& warp, u32 lanes) {
  if (lanes != kAllLanes) {
    fail(warp, "a matrix instruction of a warp whose other threads do not exist or have exited",
         lanes);
  }
}

inline void expect_vector(const Decoder& decoder, std::size_t i) {
  if (decoder.operand(i).kind != Operand::Kind::kVector) {
    decoder.fail("operand " + std::to_string(i + 1) + " is no vector");
  }
}
inline std::vector<Reg> read_vector(Decoder& decoder, std::size_t i, u8 bytes) {
  expect_vector(decoder, i);
  return decoder.read_all(i, bytes);
}
inline std::vector<Reg> write_vector(Decoder& decoder, std::size_t i, u8 bytes) {
  expect_vector(decoder, i);
  return decoder.write_all(i, bytes);
}

/// Where a warp's registers hold A of 16 rows and 16 k (sections 9.7.14.5.8, 9.7.15.5.1): register
/// file offsets of eight elements each, [row][k]. Register i has rows from 8 (i % 2) and k from 8
/// (i / 2); four lanes share a row.
inline std::vector<u32> chunks_of_a(const std::vector<Reg>& registers) {
  std::vector<u32> chunks;
  for (u32 row = 0; row < 16; ++row) {
    for (u32 k = 0; k < 16; k += 8) {
      chunks.push_back(registers[row / 8 + 2 * (k / 8)].offset + row % 8 * 16);
    }
  }
  return chunks;
}

}  // namespace ptxsim
