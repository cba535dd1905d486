// The arithmetic of mma and wgmma on 16-bit floats: a tile of 16 rows, 16 k, and a multiple of 8
// columns.
//
// An element's products are summed in float32 by ascending k, from +0; each product and addition is
// rounded once (fma). The sum is then added to the accumulator, and rounded again if the
// accumulator has 16 bits. So all instruction sets below give the same bits on every machine. The
// manual leaves order and rounding open, and hardware differs: it aligns several products and the
// accumulator to the largest, and truncates what is below. NaN is 0x7fffffff. Subnormals are kept.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "types.h"

namespace ptxsim {

constexpr u32 kTileRows = 16;
constexpr u32 kTileK = 16;
constexpr u32 kMaxTileColumns = 256;

enum class Element : u8 { kF16, kBf16 };

/// Registers of 32-bit accumulators, four for eight columns. In lane 4 g + t, register 4 j + i, i =
/// 0..3, holds row g + 8 (i / 2), column 8 j + 2 t + i % 2 (sections 9.7.14.5.8, 9.7.15.5.1).
struct AccumulatorRegisters {
  u8* base = nullptr;
  const u32* offsets = nullptr;  // Byte offset of each register.
};

/// Computes d = A B, or c + A B.
struct TileProduct {
  const float* a = nullptr;  // [k][row]
  const float* b = nullptr;  // [column][k], or [k][column] if b_is_mn_major.
  bool b_is_mn_major = false;
  u32 num_columns = 8;
  bool accumulates = false;
  AccumulatorRegisters c;  // May be d, but only with its registers in the same order.
  AccumulatorRegisters d;
};

/// The functions for one instruction set.
struct MultiplyKernels {
  const char* name;
  /// Converts eight elements at each offset to eight floats, in order.
  void (*convert)(const u8* base, std::span<const u32> offsets, Element element, float* to);
  /// Transposes [row][k] to [k][row].
  void (*transpose)(const float* from, float* to);
  void (*multiply)(const TileProduct& product);
};

/// Those that this machine supports, fastest first.
std::span<const MultiplyKernels> multiply_kernels();

}  // namespace ptxsim
