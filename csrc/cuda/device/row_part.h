// The 16 bytes of a row that one instruction loads or stores.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace minference::device {

/// 8 elements.
struct alignas(16) RowPart {
  uint32_t words[4];
};

inline constexpr int kPartElements = 8;

}  // namespace minference::device
