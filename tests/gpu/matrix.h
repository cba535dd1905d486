// Shared by the cases of warp-wide matrix loads and stores: where their rows lie.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/emulation.h"

namespace minference::gpu_test {

inline constexpr int kMatrixWords = 4 * 8 * 4;  // Four 8x8 matrices of 16-bit elements.

/// Rows of 16 bytes, scattered over twice the space they need: they may be anywhere.
struct MatrixTraits {
  static constexpr int kSlots = 64;
  struct Storage {
    alignas(16) uint32_t slots[kSlots][4];
  };
};

__device__ inline int slot_of_row(int row) { return (row * 13 + 7) % MatrixTraits::kSlots; }

}  // namespace minference::gpu_test
