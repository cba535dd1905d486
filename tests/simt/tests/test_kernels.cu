// Whole kernels of common kinds: their results depend neither on the schedule nor on when copies
// land, and the checkers find nothing.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include <cmath>

#include "test.h"

namespace {

using simt::test::DeviceArray;
using simt::test::for_all_schedules;

template <typename T>
__device__ T& shared_storage() {
  return *static_cast<T*>(simt::dynamic_shared(sizeof(T), alignof(T)));
}

std::vector<float> small_numbers(std::size_t count, unsigned seed) {
  std::vector<float> values(count);
  unsigned state = seed;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<int>(state >> 24) % 9 - 4);
  }
  return values;
}

// ---- Softmax of a row by a block: shuffles, then one value per warp through shared memory.

struct RowStorage {
  float warp_value[32];
};

template <typename Combine>
__device__ float combine_block(RowStorage& storage, float value, Combine combine) {
  const unsigned num_warps = blockDim.x / 32;
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    value = combine(value, __shfl_xor_sync(0xffffffffu, value, lanes));
  }
  __syncthreads();  // The values of the last combination have been read.
  if (threadIdx.x % 32 == 0) storage.warp_value[threadIdx.x / 32] = value;
  __syncthreads();  // The values of this one have been written.
  value = storage.warp_value[0];
  for (unsigned warp = 1; warp < num_warps; ++warp) {
    value = combine(value, storage.warp_value[warp]);
  }
  return value;
}

__global__ void softmax(const float* in, float* out, unsigned columns) {
  auto& storage = shared_storage<RowStorage>();
  in += blockIdx.x * columns;
  out += blockIdx.x * columns;
  float largest = -INFINITY;
  for (unsigned i = threadIdx.x; i < columns; i += blockDim.x) largest = fmaxf(largest, in[i]);
  largest = combine_block(storage, largest, [](float a, float b) { return fmaxf(a, b); });
  float sum = 0;
  for (unsigned i = threadIdx.x; i < columns; i += blockDim.x) sum += __expf(in[i] - largest);
  sum = combine_block(storage, sum, [](float a, float b) { return a + b; });
  for (unsigned i = threadIdx.x; i < columns; i += blockDim.x) {
    out[i] = __expf(in[i] - largest) / sum;
  }
}

void test_softmax() {
  constexpr std::size_t kRows = 3;
  constexpr std::size_t kColumns = 333;
  const std::vector<float> values = small_numbers(kRows * kColumns, 1);
  for_all_schedules([&] {
    const DeviceArray<float> in(values);
    const DeviceArray<float> out(values.size());
    simt::launch("softmax", dim3(kRows), dim3(128), sizeof(RowStorage), nullptr, &softmax,
                 in.data(), out.data(), static_cast<unsigned>(kColumns));
    double largest_error = 0;
    for (std::size_t row = 0; row < kRows; ++row) {
      double sum = 0;
      for (std::size_t i = 0; i < kColumns; ++i)
        sum += std::exp(double{values[row * kColumns + i]});
      for (std::size_t i = row * kColumns; i < (row + 1) * kColumns; ++i) {
        const double want = std::exp(double{values[i]}) / sum;
        largest_error = std::max(largest_error, std::fabs(out[i] - want) / want);
      }
    }
    // Sums of 333 terms, mostly added in two levels: far fewer than 100 roundings each.
    CHECK(largest_error < 100 * 0x1p-24, largest_error);
  });
}

// ---- Histogram: atomics in shared memory, then in device memory.

__global__ void histogram(const unsigned* values, unsigned count, unsigned* bins) {
  unsigned* local = static_cast<unsigned*>(simt::dynamic_shared(64 * 4, 4));
  for (unsigned i = threadIdx.x; i < 64; i += blockDim.x) local[i] = 0;
  __syncthreads();
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    atomicAdd(&local[values[i] % 64], 1u);
  }
  __syncthreads();
  for (unsigned i = threadIdx.x; i < 64; i += blockDim.x) atomicAdd(&bins[i], local[i]);
}

void test_histogram() {
  std::vector<unsigned> values(1000);
  std::vector<unsigned> want(64, 0);
  for (unsigned i = 0; i < 1000; ++i) {
    values[i] = i * i;
    ++want[values[i] % 64];
  }
  for_all_schedules([&] {
    const DeviceArray<unsigned> device_values(values);
    const DeviceArray<unsigned> bins(64, 0u);
    simt::launch("histogram", dim3(3), dim3(96), 256, nullptr, &histogram, device_values.data(),
                 1000u, bins.data());
    CHECK(bins.values() == want);
  });
}

// ---- Matrix product by tiles in shared memory, plain arithmetic.

constexpr unsigned kTile = 16;

struct TileStorage {
  float a[kTile][kTile];
  float b[kTile][kTile];
};

__global__ void tiled_product(const float* a, const float* b, float* c, unsigned m, unsigned n,
                              unsigned k) {
  auto& tiles = shared_storage<TileStorage>();
  const unsigned row = blockIdx.y * kTile + threadIdx.y;
  const unsigned column = blockIdx.x * kTile + threadIdx.x;
  float sum = 0;
  for (unsigned first = 0; first < k; first += kTile) {
    const unsigned ka = first + threadIdx.x;
    const unsigned kb = first + threadIdx.y;
    tiles.a[threadIdx.y][threadIdx.x] = row < m && ka < k ? a[row * k + ka] : 0.0f;
    tiles.b[threadIdx.y][threadIdx.x] = kb < k && column < n ? b[kb * n + column] : 0.0f;
    __syncthreads();
    for (unsigned i = 0; i < kTile; ++i) sum += tiles.a[threadIdx.y][i] * tiles.b[i][threadIdx.x];
    __syncthreads();
  }
  if (row < m && column < n) c[row * n + column] = sum;
}

std::vector<float> product(const std::vector<float>& a, const std::vector<float>& b, std::size_t m,
                           std::size_t n, std::size_t k) {
  std::vector<float> c(m * n, 0.0f);
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t l = 0; l < k; ++l) {
      for (std::size_t j = 0; j < n; ++j) c[i * n + j] += a[i * k + l] * b[l * n + j];
    }
  }
  return c;
}

void test_tiled_product() {
  constexpr unsigned kM = 37, kN = 21, kK = 50;
  const std::vector<float> a = small_numbers(kM * kK, 2);
  const std::vector<float> b = small_numbers(kK * kN, 3);
  const std::vector<float> want = product(a, b, kM, kN, kK);  // Integers: exact in any order.
  for_all_schedules([&] {
    const DeviceArray<float> device_a(a);
    const DeviceArray<float> device_b(b);
    const DeviceArray<float> c(want.size());
    simt::launch("tiled_product", dim3(2, 3), dim3(kTile, kTile), sizeof(TileStorage), nullptr,
                 &tiled_product, device_a.data(), device_b.data(), c.data(), kM, kN, kK);
    CHECK(c.values() == want);
  });
}

// ---- Matrix product on tensor cores: cp.async pipeline, swizzled tiles, ldmatrix, mma.
// C [m, n] = A [m, k] B [n, k]^T; a block of 4 warps computes 64 x 32, a warp 16 rows of it.

constexpr int kBlockM = 64, kBlockN = 32, kBlockK = 32, kNumStages = 3;

struct PipelineStorage {
  alignas(128) uint16_t a[kNumStages][kBlockM][kBlockK];
  alignas(128) uint16_t b[kNumStages][kBlockN][kBlockK];
};

/// Rows of 64 bytes are 4 chunks of 16; rows 2i and 2i + 1 share the 128 bytes that span all banks.
__device__ uint16_t* chunk_of(uint16_t (*tile)[kBlockK], int row, int chunk) {
  return &tile[row][(chunk ^ (row / 2 % 4)) * 8];
}

__device__ void load_stage(PipelineStorage& storage, int stage, const uint16_t* a,
                           const uint16_t* b, int k, int first_k) {
  for (int i = static_cast<int>(threadIdx.x); i < (kBlockM + kBlockN) * 4; i += 128) {
    const int row = i / 4;
    const bool is_a = row < kBlockM;
    const uint16_t* from = is_a ? a + row * k : b + (row - kBlockM) * k;
    uint16_t* to = is_a ? chunk_of(storage.a[stage], row, i % 4)
                        : chunk_of(storage.b[stage], row - kBlockM, i % 4);
    simt::cp_async(to, from + first_k + i % 4 * 8, 16, 16);
  }
}

__device__ void multiply_stage(PipelineStorage& storage, int stage, float (&sums)[4][4],
                               bool bf16) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  for (int step = 0; step < kBlockK / 16; ++step) {
    uint32_t a[4];
    simt::ldmatrix(a, 4, false,
                   chunk_of(storage.a[stage], warp * 16 + lane % 16, step * 2 + lane / 16));
    for (int pair = 0; pair < 2; ++pair) {  // 16 columns of C.
      uint32_t b[4];
      simt::ldmatrix(b, 4, false,
                     chunk_of(storage.b[stage], pair * 16 + lane / 16 * 8 + lane % 8,
                              step * 2 + lane / 8 % 2));
      simt::mma_m16n8k16(sums[pair * 2], a, {b[0], b[1]}, bf16);
      simt::mma_m16n8k16(sums[pair * 2 + 1], a, {b[2], b[3]}, bf16);
    }
  }
}

__global__ void pipelined_product(const uint16_t* a, const uint16_t* b, float* c, int n, int k,
                                  bool bf16) {
  auto& storage = shared_storage<PipelineStorage>();
  a += static_cast<int>(blockIdx.y) * kBlockM * k;
  b += static_cast<int>(blockIdx.x) * kBlockN * k;
  const int num_tiles = k / kBlockK;
  for (int tile = 0; tile < kNumStages - 1; ++tile) {
    if (tile < num_tiles) load_stage(storage, tile, a, b, k, tile * kBlockK);
    simt::cp_async_commit();
  }
  float sums[4][4] = {};
  for (int tile = 0; tile < num_tiles; ++tile) {
    simt::cp_async_wait(kNumStages - 2);
    __syncthreads();  // The tile has landed; nobody still reads the stage loaded next.
    const int next = tile + kNumStages - 1;
    if (next < num_tiles) load_stage(storage, next % kNumStages, a, b, k, next * kBlockK);
    simt::cp_async_commit();
    multiply_stage(storage, tile % kNumStages, sums, bf16);
  }
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = static_cast<int>(blockIdx.y) * kBlockM + static_cast<int>(threadIdx.x) / 32 * 16;
  for (int column = 0; column < 4; ++column) {
    for (int i = 0; i < 4; ++i) {
      c[(row + lane / 4 + i / 2 * 8) * n + static_cast<int>(blockIdx.x) * kBlockN + column * 8 +
        lane % 4 * 2 + i % 2] = sums[column][i];
    }
  }
}

void test_pipelined_product(bool bf16) {
  constexpr int kM = 128, kN = 64, kK = 160;
  const std::vector<float> a = small_numbers(kM * kK, 4);
  const std::vector<float> b = small_numbers(kN * kK, 5);
  std::vector<float> b_transposed(b.size());
  for (int j = 0; j < kN; ++j) {
    for (int l = 0; l < kK; ++l) {
      b_transposed[static_cast<std::size_t>(l * kN + j)] = b[static_cast<std::size_t>(j * kK + l)];
    }
  }
  const std::vector<float> want = product(a, b_transposed, kM, kN, kK);
  const auto packed = [bf16](const std::vector<float>& values) {
    std::vector<uint16_t> bits(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      bits[i] = static_cast<uint16_t>(bf16 ? simt::pack_bf16x2(values[i], 0)
                                           : simt::pack_f16x2(values[i], 0));
    }
    return bits;
  };
  for_all_schedules([&] {
    const DeviceArray<uint16_t> device_a(packed(a));
    const DeviceArray<uint16_t> device_b(packed(b));
    const DeviceArray<float> c(want.size());
    simt::launch("pipelined_product", dim3(kN / kBlockN, kM / kBlockM), dim3(128),
                 sizeof(PipelineStorage), nullptr, &pipelined_product, device_a.data(),
                 device_b.data(), c.data(), kN, kK, bf16);
    CHECK(c.values() == want);
  });
}

}  // namespace

int main() {
  test_softmax();
  test_histogram();
  test_tiled_product();
  test_pipelined_product(/*bf16=*/true);
  test_pipelined_product(/*bf16=*/false);
  return simt::test::finish();
}
