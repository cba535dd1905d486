// Matrix instructions of a warp: ldmatrix, stmatrix, mma.sync. PTX ISA, "Matrix Fragments for
// mma.m16n8k16": lane = 4 g + t holds A (g, 2t..), (g + 8, 2t..), (g, 2t + 8..), (g + 8, 2t + 8..),
// B (2t.., g), (2t + 8.., g), C (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
// SPDX-License-Identifier: Apache-2.0
#include <simt/instructions.h>

#include <array>
#include <cstring>

#include "engine.h"
#include "numbers.h"

namespace simt {
namespace {

using engine::Access;
using engine::Collective;
using engine::Engine;
using engine::LibraryCall;
using engine::Thread;

constexpr std::size_t kRowBytes = 16;

struct MatrixItem {
  char* row;
  uint32_t* fragment;
  int count;
  bool transposed;
};

struct MmaItem {
  float* c;
  const uint32_t* a;
  const uint32_t* b;
  bool bf16;
};

template <typename Item>
Item& item_of(const Collective& collective, int lane) {
  return *static_cast<Item*>(collective.items[static_cast<std::size_t>(lane)]);
}

Thread& lane_thread(Engine& engine, int lane) {
  return engine.thread_at(engine.current().warp * 32 + lane);
}

/// Returns the row that lane `lane` passed, checked as an access of that lane.
char* checked_row(Engine& engine, const Collective& collective, int lane, Access kind) {
  Thread& thread = lane_thread(engine, lane);
  char* row = item_of<MatrixItem>(collective, lane).row;
  if (!engine.shared().contains(row) || reinterpret_cast<uintptr_t>(row) % kRowBytes != 0) {
    engine.fail(thread, [&] {
      return std::string("passes ") + collective.name +
             (engine.shared().contains(row) ? " an address that is not a multiple of 16"
                                            : " an address that is not in shared memory");
    });
  }
  engine.check_access(thread, row, kRowBytes, kind);
  return row;
}

/// Where element (row, column) of an 8x8 matrix is: the lane, and the half of its word.
struct Place {
  int lane;
  int half;
};
Place place_of(int row, int column, bool transposed) {
  if (transposed) std::swap(row, column);
  return {row * 4 + column / 2, column % 2};
}

void load_matrices(Engine& engine, Collective& collective) {
  const auto [row_of_lane_0, fragment_0, count, transposed] = item_of<MatrixItem>(collective, 0);
  for (int matrix = 0; matrix < count; ++matrix) {
    std::array<std::array<uint16_t, 8>, 8> elements;
    for (int row = 0; row < 8; ++row) {
      std::memcpy(&elements[static_cast<std::size_t>(row)],
                  checked_row(engine, collective, matrix * 8 + row, Access::kRead), kRowBytes);
    }
    for (int row = 0; row < 8; ++row) {
      for (int column = 0; column < 8; ++column) {
        const Place place = place_of(row, column, transposed);
        const uint32_t element =
            elements[static_cast<std::size_t>(row)][static_cast<std::size_t>(column)];
        uint32_t& word = item_of<MatrixItem>(collective, place.lane).fragment[matrix];
        word = place.half == 0 ? (word & 0xffff0000u) | element
                               : (word & 0x0000ffffu) | (element << 16);
      }
    }
  }
}

void store_matrices(Engine& engine, Collective& collective) {
  const auto [row_of_lane_0, fragment_0, count, transposed] = item_of<MatrixItem>(collective, 0);
  for (int matrix = 0; matrix < count; ++matrix) {
    for (int row = 0; row < 8; ++row) {
      std::array<uint16_t, 8> elements;
      for (int column = 0; column < 8; ++column) {
        const Place place = place_of(row, column, transposed);
        const uint32_t word = item_of<MatrixItem>(collective, place.lane).fragment[matrix];
        elements[static_cast<std::size_t>(column)] =
            static_cast<uint16_t>(place.half == 0 ? word : word >> 16);
      }
      std::memcpy(checked_row(engine, collective, matrix * 8 + row, Access::kWrite), &elements,
                  kRowBytes);
    }
  }
}

float widen(uint32_t bits, bool bf16) {
  return bf16 ? engine::float_from_bfloat16(bits)
              : engine::float_from_half(static_cast<uint16_t>(bits));
}

struct Tiles {
  std::array<std::array<float, 16>, 16> a;  // [m][k]
  std::array<std::array<float, 8>, 16> b;   // [k][n]
  std::array<std::array<float, 8>, 16> c;   // [m][n]
};

/// A row of b or c as one value for the compiler's vector arithmetic.
using Row8 = float __attribute__((vector_size(32)));

template <bool kBf16>
void gather(const Collective& collective, Tiles& tiles) {
  for (std::size_t lane = 0; lane < 32; ++lane) {
    const MmaItem& item = item_of<MmaItem>(collective, static_cast<int>(lane));
    const std::size_t g = lane / 4;
    const std::size_t t2 = lane % 4 * 2;
    for (std::size_t i = 0; i < 4; ++i) {
      float* pair = &tiles.a[g + i % 2 * 8][t2 + i / 2 * 8];
      pair[0] = widen(item.a[i] & 0xffffu, kBf16);
      pair[1] = widen(item.a[i] >> 16, kBf16);
      tiles.c[g + i / 2 * 8][t2 + i % 2] = item.c[i];
    }
    for (std::size_t i = 0; i < 2; ++i) {
      tiles.b[t2 + i * 8][g] = widen(item.b[i] & 0xffffu, kBf16);
      tiles.b[t2 + i * 8 + 1][g] = widen(item.b[i] >> 16, kBf16);
    }
  }
}

void multiply(Engine&, Collective& collective) {
  Tiles tiles;
  if (item_of<MmaItem>(collective, 0).bf16) {
    gather<true>(collective, tiles);
  } else {
    gather<false>(collective, tiles);
  }
  std::array<Row8, 16> b;
  std::memcpy(&b, &tiles.b, sizeof b);
  for (std::size_t m = 0; m < 16; ++m) {
    Row8 sum;
    std::memcpy(&sum, &tiles.c[m], sizeof sum);
    for (std::size_t k = 0; k < 16; ++k) sum += tiles.a[m][k] * b[k];
    std::memcpy(&tiles.c[m], &sum, sizeof sum);
  }
  for (std::size_t lane = 0; lane < 32; ++lane) {
    const MmaItem& item = item_of<MmaItem>(collective, static_cast<int>(lane));
    for (std::size_t i = 0; i < 4; ++i) {
      item.c[i] = tiles.c[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
    }
  }
}

void meet(LibraryCall& call, const char* name, void* item, engine::Warp::Work work) {
  call.engine()
      .warp_of(call.thread())
      .meet(call.engine(), call.thread(), name, engine::kAllLanes, /*aligned=*/true, item, work);
}

void check_count(LibraryCall& call, int count) {
  if (count == 1 || count == 2 || count == 4) return;
  call.engine().fail(call.thread(), [&] {
    return "loads or stores " + std::to_string(count) + " matrices at once: can be 1, 2 or 4";
  });
}

}  // namespace

void warp_ldmatrix(uint32_t* fragment, int count, bool transposed, const void* row) {
  LibraryCall call;
  check_count(call, count);
  MatrixItem item{static_cast<char*>(const_cast<void*>(row)), fragment, count, transposed};
  meet(call, "ldmatrix", &item, &load_matrices);
}

void warp_stmatrix(void* row, const uint32_t* fragment, int count, bool transposed) {
  LibraryCall call;
  check_count(call, count);
  MatrixItem item{static_cast<char*>(row), const_cast<uint32_t*>(fragment), count, transposed};
  meet(call, "stmatrix", &item, &store_matrices);
}

void warp_mma_m16n8k16(float* c, const uint32_t* a, const uint32_t* b, bool bf16) {
  LibraryCall call;
  MmaItem item{c, a, b, bf16};
  meet(call, "mma.m16n8k16", &item, &multiply);
}

}  // namespace simt
