// cp.async: groups, sizes, zero fill, and when the bytes arrive.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include "test.h"

namespace {

using simt::test::DeviceArray;
using simt::test::for_all_schedules;

__device__ unsigned char* shared_bytes(std::size_t bytes) {
  return static_cast<unsigned char*>(simt::dynamic_shared(bytes, 16));
}

// Every thread copies 16 bytes as copies of `bytes`; the last copy reads only some of its bytes.
__global__ void copy_pieces(const unsigned char* from, unsigned char* to, int bytes,
                            int source_bytes) {
  unsigned char* shared = shared_bytes(blockDim.x * 16) + threadIdx.x * 16;
  from += threadIdx.x * 16;
  for (int at = 0; at < 16; at += bytes) {
    const bool last = at + bytes == 16;
    simt::cp_async(shared + at, source_bytes == 0 && last ? nullptr : from + at, bytes,
                   last ? source_bytes : bytes);
  }
  simt::cp_async_commit();
  simt::cp_async_wait(0);
  __syncthreads();
  const unsigned other = (threadIdx.x + 1) % blockDim.x * 16;
  for (unsigned i = 0; i < 16; ++i) to[other + i] = shared_bytes(0)[other + i];
}

void test_sizes_and_zero_fill() {
  std::vector<unsigned char> bytes(64 * 16);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<unsigned char>(i % 251 + 1);
  for_all_schedules([&] {
    for (int size : {4, 8, 16}) {
      for (int source : {0, 1, 3, size}) {
        const DeviceArray<unsigned char> from(bytes);
        const DeviceArray<unsigned char> to(bytes.size());
        simt::launch("copy_pieces", dim3(1), dim3(64), bytes.size(), nullptr, &copy_pieces,
                     from.data(), to.data(), size, source);
        bool equal = true;
        for (std::size_t i = 0; i < bytes.size(); ++i) {
          const bool filled = static_cast<int>(i % 16) >= 16 - size + source;
          equal &= to[i] == (filled ? 0 : bytes[i]);
        }
        CHECK(equal, size, source);
      }
    }
  });
}

constexpr int kStages = 3;

// Three stages in flight; empty groups at the end keep the count right.
__global__ void sum_pipelined(const int* from, int* sums, int tiles) {
  int* stages = reinterpret_cast<int*>(shared_bytes(kStages * 128 * 4));
  const int thread = static_cast<int>(threadIdx.x);
  const auto issue = [&](int tile) {
    if (tile < tiles && thread < 32) {
      simt::cp_async(stages + tile % kStages * 128 + thread * 4, from + tile * 128 + thread * 4, 16,
                     16);
    }
    simt::cp_async_commit();
  };
  for (int tile = 0; tile < kStages - 1; ++tile) issue(tile);
  int sum = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    simt::cp_async_wait(kStages - 2);
    __syncthreads();
    issue(tile + kStages - 1);
    sum += stages[tile % kStages * 128 + (thread + 64) % 128];
  }
  simt::cp_async_wait_all();
  sums[thread] = sum;
}

void test_pipeline() {
  constexpr int kTiles = 7;
  std::vector<int> values(kTiles * 128);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int>(i * i % 1000);
  for_all_schedules([&] {
    const DeviceArray<int> from(values);
    const DeviceArray<int> sums(128);
    simt::launch("sum_pipelined", dim3(1), dim3(128), kStages * 512, nullptr, &sum_pipelined,
                 from.data(), sums.data(), kTiles);
    bool equal = true;
    for (std::size_t i = 0; i < 128; ++i) {
      int want = 0;
      for (std::size_t tile = 0; tile < kTiles; ++tile) want += values[tile * 128 + (i + 64) % 128];
      equal &= sums[i] == want;
    }
    CHECK(equal);
  });
}

// The source is read when the copy lands, so late copies see writes made after their issue.
__global__ void change_source(int* from, int* to) {
  int* shared = reinterpret_cast<int*>(shared_bytes(16));
  simt::cp_async(shared, from, 16, 16);
  simt::cp_async_commit();
  from[0] = 2;
  simt::cp_async_wait(0);
  to[0] = shared[0];
}

void test_time_of_landing() {
  const DeviceArray<int> to(1);
  const auto landed = [&](simt::AsyncCopies async) {
    const DeviceArray<int> from(4, 1);
    simt::options().async = async;
    simt::launch("change_source", dim3(1), dim3(1), 16, nullptr, &change_source, from.data(),
                 to.data());
    simt::options() = {};
    return to[0];
  };
  CHECK(landed(simt::AsyncCopies::kLate) == 2);
  CHECK(landed(simt::AsyncCopies::kEager) == 1);
}

// A wait for one of two groups leaves the other in flight.
__global__ void wait_for_older(const int* from, int* to) {
  int* shared = reinterpret_cast<int*>(shared_bytes(32));
  simt::cp_async(shared, from, 16, 16);
  simt::cp_async_commit();
  simt::cp_async(shared + 4, from + 4, 16, 16);
  simt::cp_async_commit();
  simt::cp_async_wait(1);
  to[0] = shared[3];
  simt::cp_async_wait(5);  // More than there are, so this waits for nothing.
  simt::cp_async_wait(0);
  to[1] = shared[7];
}

void test_groups() {
  for_all_schedules([] {
    const DeviceArray<int> from(std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7});
    const DeviceArray<int> to(2);
    simt::launch("wait_for_older", dim3(1), dim3(1), 32, nullptr, &wait_for_older, from.data(),
                 to.data());
    CHECK(to[0] == 3 && to[1] == 7);
  });
}

}  // namespace

int main() {
  test_sizes_and_zero_fill();
  test_pipeline();
  test_time_of_landing();
  test_groups();
  return simt::test::finish();
}
