// mma.sync (section 9.7.14.5.14) of m16n8k16 and m16n8k8, f16 and bf16: a tile of multiply.h, with
// its order of sums. With k = 8, the other 8 are zeros, which change no sum.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "half.h"
#include "instructions/instructions.h"
#include "instructions/warp_matrix.h"
#include "multiply.h"

namespace ptxsim {
namespace {

constexpr u32 kColumns = 8;
constexpr u32 kMaxC = 4;
constexpr u32 kRegisterBytes = 4 * kWarpSize;

struct Mma {
  Element element = Element::kF16;
  u32 k = 16;
  std::array<u32, 32> a;  // Offsets of eight elements each in the register file, [row][k].
  std::array<u32, 16> b;  // [column][k]
  std::array<u32, kMaxC> c, d;
  bool c_is_d_elsewhere = false;  // A register is in both, at different places.
};

/// For f16 accumulators: a tile's sums, and c, in float32.
struct Accumulators {
  alignas(32) float values[kMaxC][kWarpSize];
};
constexpr std::array<u32, kMaxC> kAccumulatorOffsets = {0, kRegisterBytes, 2 * kRegisterBytes,
                                                        3 * kRegisterBytes};

AccumulatorRegisters registers_of(Accumulators& accumulators) {
  return {reinterpret_cast<u8*>(accumulators.values), kAccumulatorOffsets.data()};
}

struct Operands {
  alignas(64) float a[kTileRows * kTileK];
  alignas(64) float b[kColumns * kTileK];
};

TileProduct load_operands(const Warp& warp, const Mma& mma, Operands& operands) {
  const MultiplyKernels& kernels = multiply_kernels().front();
  alignas(64) float by_rows[kTileRows * kTileK];
  kernels.convert(warp.registers, mma.a, mma.element, by_rows);
  kernels.transpose(by_rows, operands.a);
  kernels.convert(warp.registers, mma.b, mma.element, operands.b);
  TileProduct tile;
  tile.a = operands.a;
  tile.b = operands.b;
  tile.num_columns = kColumns;
  tile.accumulates = true;
  return tile;
}

void count_flops(Warp& warp, const Mma& mma) {
  if (options().count) warp.cluster->counts->mma_flops += 2 * kTileRows * kColumns * mma.k;
}

void multiply_f32(Warp& warp, u32 lanes, const Mma& mma) {
  check_whole_warp(warp, lanes);
  Operands operands;
  TileProduct tile = load_operands(warp, mma, operands);
  tile.c = {warp.registers, mma.c.data()};
  tile.d = {warp.registers, mma.d.data()};
  Accumulators c;
  if (mma.c_is_d_elsewhere) {
    for (u32 i = 0; i < kMaxC; ++i) {
      std::memcpy(c.values[i], warp.registers + mma.c[i], kRegisterBytes);
    }
    tile.c = registers_of(c);
  }
  multiply_kernels().front().multiply(tile);
  count_flops(warp, mma);
}

/// Register i holds a column pair of one row, from row 8 i on.
void multiply_f16(Warp& warp, u32 lanes, const Mma& mma) {
  check_whole_warp(warp, lanes);
  Operands operands;
  TileProduct tile = load_operands(warp, mma, operands);
  Accumulators sums;
  for (u32 i = 0; i < 2; ++i) {
    const auto* const c = reinterpret_cast<const F16x2*>(warp.registers + mma.c[i]);
    for (u32 lane = 0; lane < kWarpSize; ++lane) {
      sums.values[2 * i][lane] = c[lane].low.value();
      sums.values[2 * i + 1][lane] = c[lane].high.value();
    }
  }
  tile.c = registers_of(sums);
  tile.d = tile.c;
  multiply_kernels().front().multiply(tile);
  for (u32 i = 0; i < 2; ++i) {
    auto* const d = reinterpret_cast<F16x2*>(warp.registers + mma.d[i]);
    for (u32 lane = 0; lane < kWarpSize; ++lane) {
      d[lane] = {F16::nearest(sums.values[2 * i][lane]),
                 F16::nearest(sums.values[2 * i + 1][lane])};
    }
  }
  count_flops(warp, mma);
}

void expect_registers(const Decoder& decoder, const std::vector<Reg>& registers, u32 count) {
  if (registers.size() == count) return;
  decoder.fail("a vector of " + std::to_string(count) + " registers expected, not of " +
               std::to_string(registers.size()));
}

/// Sets element i to the offset of register i.
void set_offsets(std::array<u32, kMaxC>& offsets, const std::vector<Reg>& registers) {
  for (std::size_t i = 0; i < registers.size(); ++i) offsets[i] = registers[i].offset;
}

bool is_elsewhere(const std::array<u32, kMaxC>& c, const std::array<u32, kMaxC>& d, u32 count) {
  for (u32 i = 0; i < count; ++i) {
    for (u32 j = 0; j < count; ++j) {
      if (i != j && c[i] == d[j]) return true;
    }
  }
  return false;
}

}  // namespace

void decode_mma(Decoder& decoder) {
  decoder.expect_operands(4);
  const bool is_f16 = decoder.last_word() == "f16";
  Mma mma;
  mma.element = decoder.has("bf16") ? Element::kBf16 : Element::kF16;
  mma.k = decoder.has("m16n8k16") ? 16 : 8;
  std::vector<Reg> a = read_vector(decoder, 1, 4);
  std::vector<Reg> b = read_vector(decoder, 2, 4);
  const std::vector<Reg> c = read_vector(decoder, 3, 4);
  const std::vector<Reg> d = write_vector(decoder, 0, 4);
  expect_registers(decoder, a, mma.k / 4);
  expect_registers(decoder, b, mma.k / 8);
  expect_registers(decoder, c, is_f16 ? 2 : 4);
  expect_registers(decoder, d, is_f16 ? 2 : 4);
  const Reg zeros = decoder.constant(0, 4);
  a.resize(4, zeros);
  b.resize(2, zeros);
  std::ranges::copy(chunks_of_a(a), mma.a.begin());
  for (u32 column = 0; column < kColumns; ++column) {
    for (u32 half = 0; half < 2; ++half) mma.b[2 * column + half] = b[half].offset + 16 * column;
  }
  set_offsets(mma.c, c);
  set_offsets(mma.d, d);
  mma.c_is_d_elsewhere = is_elsewhere(mma.c, mma.d, static_cast<u32>(c.size()));
  const auto multiply = is_f16 ? multiply_f16 : multiply_f32;
  decoder.execute([=](Warp& warp, u32 lanes) { multiply(warp, lanes, mma); }, Flow::kMeetWarp);
}

}  // namespace ptxsim
