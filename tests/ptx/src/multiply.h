// The arithmetic of mma and wgmma: a tile of 16 rows, 16 k, and columns in eights, of 16-bit
// floats.
//
// An element's products are summed in float32 by ascending k, from +0, each product and addition
// rounded once (fma); then the sum is added to the accumulator, and the result rounded again if the
// accumulator has 16 bits. So results are the same on every machine, and those of any instruction
// set below equal the others' bits. The manual leaves order and rounding open, and hardware
// differs: it aligns several products and the accumulator to the largest and cuts off what is
// below. NaN is 0x7fffffff. Subnormals count.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "types.h"

namespace ptxsim {

constexpr u32 kTileRows = 16;
constexpr u32 kTileK = 16;
constexpr u32 kMaxTileColumns = 256;

enum class Element : u8 { kF16, kBf16 };

/// Registers of accumulators of 32 bits, four for eight columns. Lane 4 g + t of registers 4 j + i,
/// i = 0..3: row g + 8 (i / 2), column 8 j + 2 t + i % 2 (sections 9.7.14.5.8, 9.7.15.5.1).
struct AccumulatorRegisters {
  u8* base = nullptr;
  const u32* offsets = nullptr;  // In bytes, by register.
};

/// d = A B, or c + A B.
struct TileProduct {
  const float* a = nullptr;  // [k][row]
  const float* b = nullptr;  // [column][k], or [k][column] if b_is_mn_major.
  bool b_is_mn_major = false;
  u32 num_columns = 8;
  bool accumulates = false;
  AccumulatorRegisters c;  // May be d, but no other order of its registers.
  AccumulatorRegisters d;
};

/// The same functions for one instruction set.
struct MultiplyKernels {
  const char* name;
  /// Eight elements at each offset, to eight floats each, in order.
  void (*convert)(const u8* base, std::span<const u32> offsets, Element element, float* to);
  /// [row][k] to [k][row].
  void (*transpose)(const float* from, float* to);
  void (*multiply)(const TileProduct& product);
};

/// Those that this machine has, the fastest first.
std::span<const MultiplyKernels> multiply_kernels();

}  // namespace ptxsim
