// ldmatrix, stmatrix and mma.m16n8k16 against the tables of the PTX ISA, written out as loops.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include <cmath>

#include "test.h"

namespace {

using simt::test::DeviceArray;
using simt::test::for_all_schedules;

/// Matrices of 8x8 16-bit elements; element (matrix, row, column) is 64 matrix + 8 row + column.
struct Matrices {
  alignas(16) uint16_t element[4][8][8];
};

__global__ void load(uint32_t* fragments, int count, bool transposed) {
  auto& shared = *static_cast<Matrices*>(simt::dynamic_shared(sizeof(Matrices), 16));
  const unsigned lane = threadIdx.x % 32;
  for (unsigned i = threadIdx.x; i < 256; i += blockDim.x) {
    shared.element[i / 64][i / 8 % 8][i % 8] = static_cast<uint16_t>(i);
  }
  __syncthreads();
  uint32_t fragment[4] = {};
  simt::ldmatrix(fragment, count, transposed, shared.element[lane / 8][lane % 8]);
  for (int i = 0; i < 4; ++i) fragments[threadIdx.x * 4 + static_cast<unsigned>(i)] = fragment[i];
}

__global__ void store(uint16_t* elements, int count, bool transposed) {
  auto& shared = *static_cast<Matrices*>(simt::dynamic_shared(sizeof(Matrices), 16));
  const unsigned lane = threadIdx.x;
  uint32_t fragment[4];
  for (unsigned i = 0; i < 4; ++i) {
    // The two elements of matrix i that the lane holds: columns 2t, 2t + 1 of row g.
    const uint32_t first =
        64 * i + (transposed ? 16 * (lane % 4) + lane / 4 : 8 * (lane / 4) + 2 * (lane % 4));
    fragment[i] = first | (first + (transposed ? 8 : 1)) << 16;
  }
  simt::stmatrix(shared.element[lane / 8][lane % 8], fragment, count, transposed);
  __syncwarp();
  for (int i = static_cast<int>(lane); i < 64 * count; i += 32) {
    elements[i] = shared.element[i / 64][i / 8 % 8][i % 8];
  }
}

void test_ldmatrix_stmatrix() {
  for (int count : {1, 2, 4}) {
    for (bool transposed : {false, true}) {
      const DeviceArray<uint32_t> fragments(256);
      simt::launch("load", dim3(1), dim3(64), sizeof(Matrices), nullptr, &load, fragments.data(),
                   count, transposed);
      bool equal = true;
      for (unsigned i = 0; i < 256; ++i) {
        const unsigned matrix = i % 4;
        const unsigned lane = i / 4 % 32;
        const unsigned g = lane / 4;
        const unsigned t = lane % 4;
        unsigned low = 64 * matrix + (transposed ? 16 * t + g : 8 * g + 2 * t);
        unsigned high = low + (transposed ? 8 : 1);
        if (matrix >= static_cast<unsigned>(count)) low = high = 0;
        equal &= fragments[i] == (low | high << 16);
      }
      CHECK(equal, count, transposed);
      const DeviceArray<uint16_t> elements(static_cast<std::size_t>(64 * count));
      simt::launch("store", dim3(1), dim3(32), sizeof(Matrices), nullptr, &store, elements.data(),
                   count, transposed);
      equal = true;
      for (unsigned i = 0; i < elements.size(); ++i) equal &= elements[i] == i;
      CHECK(equal, count, transposed);
    }
  }
}

struct Operands {
  float a[16][16];  // [m][k]
  float b[16][8];   // [k][n]
  float c[16][8];   // [m][n]
};

__device__ uint32_t pack(float low, float high, bool bf16) {
  return bf16 ? simt::pack_bf16x2(low, high) : simt::pack_f16x2(low, high);
}

__global__ void multiply(Operands* operands, bool bf16) {
  Operands& o = *operands;
  const unsigned g = threadIdx.x / 4;
  const unsigned t = threadIdx.x % 4 * 2;
  const uint32_t a[4] = {
      pack(o.a[g][t], o.a[g][t + 1], bf16), pack(o.a[g + 8][t], o.a[g + 8][t + 1], bf16),
      pack(o.a[g][t + 8], o.a[g][t + 9], bf16), pack(o.a[g + 8][t + 8], o.a[g + 8][t + 9], bf16)};
  const uint32_t b[2] = {pack(o.b[t][g], o.b[t + 1][g], bf16),
                         pack(o.b[t + 8][g], o.b[t + 9][g], bf16)};
  float c[4] = {o.c[g][t], o.c[g][t + 1], o.c[g + 8][t], o.c[g + 8][t + 1]};
  simt::mma_m16n8k16(c, a, b, bf16);
  o.c[g][t] = c[0];
  o.c[g][t + 1] = c[1];
  o.c[g + 8][t] = c[2];
  o.c[g + 8][t + 1] = c[3];
}

// Small integers are exact in both formats and in any order.
void test_mma(bool bf16) {
  Operands operands;
  for (int m = 0; m < 16; ++m) {
    for (int k = 0; k < 16; ++k) operands.a[m][k] = static_cast<float>((m * 7 + k * 3) % 11 - 5);
    for (int n = 0; n < 8; ++n) operands.c[m][n] = static_cast<float>(m - n);
  }
  for (int k = 0; k < 16; ++k) {
    for (int n = 0; n < 8; ++n) operands.b[k][n] = static_cast<float>((k * 5 + n * 2) % 9 - 4);
  }
  for_all_schedules([&] {
    const DeviceArray<Operands> device(1, operands);
    simt::launch("multiply", dim3(1), dim3(32), 0, nullptr, &multiply, device.data(), bf16);
    bool equal = true;
    for (int m = 0; m < 16; ++m) {
      for (int n = 0; n < 8; ++n) {
        float want = operands.c[m][n];
        for (int k = 0; k < 16; ++k) want += operands.a[m][k] * operands.b[k][n];
        equal &= device[0].c[m][n] == want;
      }
    }
    CHECK(equal, bf16);
  });
}

void test_special_products() {
  Operands operands{};
  operands.a[0][0] = INFINITY;
  operands.b[0][0] = 1;
  operands.a[1][1] = NAN;
  operands.a[2][0] = 0x1p-24f;  // The smallest positive half; its factor in b is 0.
  const DeviceArray<Operands> device(1, operands);
  simt::launch("multiply", dim3(1), dim3(32), 0, nullptr, &multiply, device.data(), false);
  const auto& c = device[0].c;
  CHECK(std::isinf(c[0][0]) && std::isnan(c[0][1]) && std::isnan(c[1][3]));
  CHECK(c[2][0] == 0x1p-24f && c[2][1] == 0 && c[15][7] == 0);
}

}  // namespace

int main() {
  test_ldmatrix_stmatrix();
  test_mma(/*bf16=*/false);
  test_mma(/*bf16=*/true);
  test_special_products();
  return simt::test::finish();
}
