// The 16 bytes of a row that one instruction loads, stores or copies.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace minference::device {

/// 8 elements of 16 bits.
struct alignas(16) RowPiece {
  uint32_t words[4];
};

inline constexpr int kPieceBytes = sizeof(RowPiece);
inline constexpr int kPieceElements = kPieceBytes / 2;

}  // namespace minference::device
