// The loops of multiply.cpp, included once for each instruction set. Before the include there must
// be the macro PTXSIM_TARGET and, in the surrounding namespace, multiply_add() on vectors and
// convert_f16().
//
// Rows are vector elements and B's elements are broadcast, so B may have either layout. Four
// columns of equal parity are the four lanes that share a row in one register.
// SPDX-License-Identifier: Apache-2.0

/// A column of the tile.
struct Rows {
  Floats low = {}, high = {};
};
PTXSIM_TARGET inline Rows load_rows(const float* from) {
  Rows rows;
  std::memcpy(&rows.low, from, sizeof rows.low);
  std::memcpy(&rows.high, from + 8, sizeof rows.high);
  return rows;
}
PTXSIM_TARGET inline Rows multiply_add(const Rows& a, float b, const Rows& c) {
  const Floats each = Floats{} + b;
  return {multiply_add(a.low, each, c.low), multiply_add(a.high, each, c.high)};
}

PTXSIM_TARGET inline Floats convert_bf16(const u8* from) {
  Halves bits;
  std::memcpy(&bits, from, sizeof bits);
  const Words wide = __builtin_convertvector(bits, Words) << 16;
  return std::bit_cast<Floats>(wide);
}

PTXSIM_TARGET void convert(const u8* base, std::span<const u32> offsets, Element element,
                           float* to) {
  if (element == Element::kBf16) {
    for (std::size_t i = 0; i < offsets.size(); ++i) {
      const Floats values = convert_bf16(base + offsets[i]);
      std::memcpy(to + 8 * i, &values, sizeof values);
    }
  } else {
    for (std::size_t i = 0; i < offsets.size(); ++i) {
      const Floats values = convert_f16(base + offsets[i]);
      std::memcpy(to + 8 * i, &values, sizeof values);
    }
  }
}

/// Interleaves the even halves of each 128 bits of a and b; then the odd ones.
PTXSIM_TARGET inline Floats unpack_low(Floats a, Floats b) {
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13);
}
PTXSIM_TARGET inline Floats unpack_high(Floats a, Floats b) {
  return __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
}
PTXSIM_TARGET inline Floats unpack_low_pairs(Floats a, Floats b) {
  return __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
}
PTXSIM_TARGET inline Floats unpack_high_pairs(Floats a, Floats b) {
  return __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
}
PTXSIM_TARGET inline Floats join_low(Floats a, Floats b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11);
}
PTXSIM_TARGET inline Floats join_high(Floats a, Floats b) {
  return __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
}

/// Transposes each 128 bits of four vectors as a 4 x 4 matrix.
PTXSIM_TARGET inline void transpose_quarters(Floats (&v)[4]) {
  const Floats low01 = unpack_low(v[0], v[1]);
  const Floats high01 = unpack_high(v[0], v[1]);
  const Floats low23 = unpack_low(v[2], v[3]);
  const Floats high23 = unpack_high(v[2], v[3]);
  v[0] = unpack_low_pairs(low01, low23);
  v[1] = unpack_high_pairs(low01, low23);
  v[2] = unpack_low_pairs(high01, high23);
  v[3] = unpack_high_pairs(high01, high23);
}

PTXSIM_TARGET inline void store_columns(Floats (&v)[4], float* to) {
  transpose_quarters(v);
  for (u32 i = 0; i < 4; ++i) std::memcpy(to + i * kTileRows, &v[i], sizeof v[i]);
}

PTXSIM_TARGET void transpose(const float* from, float* to) {
  for (u32 row = 0; row < kTileRows; row += 8) {
    for (u32 k = 0; k < kTileK; k += 8) {
      Floats low[4], high[4];  // [i]: rows i and i + 4, the first four k; the others.
      for (u32 i = 0; i < 4; ++i) {
        Floats upper, lower;
        std::memcpy(&upper, from + (row + i) * kTileK + k, sizeof upper);
        std::memcpy(&lower, from + (row + i + 4) * kTileK + k, sizeof lower);
        low[i] = join_low(upper, lower);
        high[i] = join_high(upper, lower);
      }
      store_columns(low, to + k * kTileRows + row);
      store_columns(high, to + (k + 4) * kTileRows + row);
    }
  }
}

/// d = c + sum, or d = sum, for eight lanes.
PTXSIM_TARGET inline void finish(const TileProduct& product, u32 reg, u32 eighth, Floats sum) {
  if (product.accumulates) {
    Floats old;
    std::memcpy(&old, product.c.base + product.c.offsets[reg] + 32 * eighth, sizeof old);
    sum = old + sum;
  }
  const auto is_number = sum == sum;
  const Words result = is_number ? std::bit_cast<Words>(sum) : Words{} + kCanonicalNan;
  std::memcpy(product.d.base + product.d.offsets[reg] + 32 * eighth, &result, sizeof result);
}

struct FourColumns {
  Floats v[4];  // Eight rows each.
};
PTXSIM_TARGET inline void finish_register(const TileProduct& product, u32 reg,
                                          const FourColumns& columns) {
  Floats v[4] = {columns.v[0], columns.v[1], columns.v[2], columns.v[3]};
  transpose_quarters(v);  // v[i]: rows i and i + 4, four columns each.
  finish(product, reg, 0, join_low(v[0], v[1]));
  finish(product, reg, 1, join_low(v[2], v[3]));
  finish(product, reg, 2, join_high(v[0], v[1]));
  finish(product, reg, 3, join_high(v[2], v[3]));
}

PTXSIM_TARGET inline __attribute__((always_inline)) void multiply_by_steps(
    const TileProduct& product, u32 step_column, u32 step_k) {
  for (u32 column = 0; column < product.num_columns; column += 8) {
    for (u32 parity = 0; parity < 2; ++parity) {
      const float* b = product.b + (column + parity) * step_column;
      Rows sum[4] = {};
#pragma GCC unroll 16
      for (u32 k = 0; k < kTileK; ++k, b += step_k) {
        const Rows rows = load_rows(product.a + k * kTileRows);
        for (u32 t = 0; t < 4; ++t) sum[t] = multiply_add(rows, b[2 * t * step_column], sum[t]);
      }
      const u32 reg = column / 2 + parity;
      finish_register(product, reg, {sum[0].low, sum[1].low, sum[2].low, sum[3].low});
      finish_register(product, reg + 2, {sum[0].high, sum[1].high, sum[2].high, sum[3].high});
    }
  }
}

PTXSIM_TARGET void multiply(const TileProduct& product) {
  if (product.b_is_mn_major) {
    multiply_by_steps(product, /*step_column=*/1, product.num_columns);
  } else {
    multiply_by_steps(product, kTileK, /*step_k=*/1);
  }
}
