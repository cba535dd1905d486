// Launches: what is refused, how arguments are passed, and what kernels may use.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include <cstring>
#include <memory>
#include <stdexcept>
#include <thread>

#include "test.h"

namespace {

using simt::test::DeviceArray;
using simt::test::for_all_schedules;

__global__ void nothing() {}

cudaError_t launch_nothing(dim3 grid, dim3 block, std::size_t shared_bytes = 0) {
  return simt::launch("nothing", grid, block, shared_bytes, nullptr, &nothing);
}

void test_shapes() {
  CHECK(launch_nothing(dim3(1), dim3(1)) == cudaSuccess);
  CHECK(launch_nothing(dim3(1), dim3(1024)) == cudaSuccess);
  CHECK(launch_nothing(dim3(1), dim3(4, 4, 64)) == cudaSuccess);
  CHECK(launch_nothing(dim3(1, 1, 1000), dim3(1)) == cudaSuccess);
  CHECK(launch_nothing(dim3(70000), dim3(1)) == cudaSuccess);
  for (const dim3& grid :
       {dim3(0), dim3(1, 0), dim3(1, 1, 0), dim3(1, 65536), dim3(1, 1, 65536), dim3(0x80000000u)}) {
    CHECK(launch_nothing(grid, dim3(1)) == cudaErrorInvalidConfiguration);
  }
  for (const dim3& block : {dim3(0), dim3(1025), dim3(32, 33), dim3(1, 1, 65), dim3(1, 1025)}) {
    CHECK(launch_nothing(dim3(1), block) == cudaErrorInvalidConfiguration);
  }
  CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
}

void test_shared_limit() {
  CHECK(launch_nothing(dim3(1), dim3(1), 101376) == cudaSuccess);
  CHECK(launch_nothing(dim3(1), dim3(1), 101377) == cudaErrorInvalidValue);
  simt::options().max_shared_bytes = 232448;
  CHECK(launch_nothing(dim3(1), dim3(1), 232448) == cudaSuccess);
  CHECK(launch_nothing(dim3(1), dim3(1), 232449) == cudaErrorInvalidValue);
  simt::options() = {};
  cudaGetLastError();
}

struct Large {
  alignas(16) uint32_t words[960];
  char tail;
};

__global__ void read_parameters(const __grid_constant__ Large large, float4 vector, char c,
                                unsigned* result) {
  if (threadIdx.x != 7) return;
  unsigned sum = 0;
  for (int i = 0; i < 960; ++i) sum += large.words[i];
  result[0] = sum;
  result[1] = static_cast<unsigned>(vector.w);
  result[2] = static_cast<unsigned>(c + large.tail);
}

void test_parameters() {
  Large large{};
  for (uint32_t i = 0; i < 960; ++i) large.words[i] = i;
  large.tail = 2;
  const DeviceArray<unsigned> result(3);
  simt::launch("read_parameters", dim3(1), dim3(8), 0, nullptr, &read_parameters, large,
               make_float4(1, 2, 3, 4), 'a', result.data());
  CHECK(result[0] == 960 * 959 / 2 && result[1] == 4 && result[2] == 'a' + 2);
}

constexpr int kTable[5] = {3, 1, 4, 1, 5};
int counter = 0;

struct Shape {
  virtual int sides() const = 0;
  virtual ~Shape() = default;
};
struct Square : Shape {
  int sides() const override { return 4; }
};

__device__ int factorial(int n) {
  int results[13];  // Local memory, indexed at run time.
  results[0] = 1;
  for (int i = 1; i <= n; ++i) results[i] = results[i - 1] * i;
  return results[n];
}

// Static data, local arrays, virtual calls, memcpy and memset all belong to the kernel.
__global__ void use_memory(const int* from, int* to) {
  ++counter;
  const Square square;
  const Shape& shape = square;
  int block[8];
  std::memcpy(block, from, sizeof block);
  int* shared = static_cast<int*>(simt::dynamic_shared(64, 4));
  std::memset(shared, 0, 64);
  std::memcpy(shared, block, 32);
  std::memmove(shared + 4, shared, 32);
  to[0] = kTable[static_cast<std::size_t>(from[0])] + shape.sides();
  to[1] = factorial(from[1]);
  to[2] = shared[11];
  to[3] = shared[12];
  std::memcpy(to + 4, shared + 7, 4);
  std::memcpy(to + 5, block, 12);
}

void test_memory_of_kernels() {
  const DeviceArray<int> from(std::vector<int>{2, 6, 0, 0, 0, 0, 0, 9});
  const DeviceArray<int> to(8);
  simt::launch("use_memory", dim3(1), dim3(1), 64, nullptr, &use_memory, from.data(), to.data());
  CHECK(to.values() == std::vector<int>({4 + 4, 720, 9, 0, 0, 2, 6, 0}) && counter == 1);
#if defined(SIMT_INSTRUMENTED)
  CHECK(simt::first_uninitialized(to.data(), 32) == 32);
#endif
}

__global__ void throw_in_one(int thread) {
  if (static_cast<int>(threadIdx.x) == thread) throw std::out_of_range("from a kernel");
  __syncthreads();
}

void test_exceptions() {
  for (int thread : {0, 33, 99}) {
    std::string text;
    try {
      simt::launch("throw_in_one", dim3(2), dim3(100), 0, nullptr, &throw_in_one, thread);
    } catch (const std::out_of_range& error) {
      text = error.what();
    }
    CHECK(text == "from a kernel");
  }
  CHECK(launch_nothing(dim3(2), dim3(100)) == cudaSuccess, "the next launch is not concerned");
}

__global__ void add_one(int* value) { atomicAdd(value, 1); }

// Launches of several host threads run one after another.
void test_host_threads() {
  const DeviceArray<int> value(1, 0);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 20; ++j) {
        simt::launch("add_one", dim3(3), dim3(33), 0, nullptr, &add_one, value.data());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(value[0] == 4 * 20 * 99, value[0]);
}

__global__ void record_order(unsigned* order, unsigned* count) {
  if (threadIdx.x == 0) order[atomicAdd(count, 1u)] = blockIdx.x;
}

std::vector<unsigned> order_of_blocks(unsigned blocks) {
  const DeviceArray<unsigned> order(blocks);
  const DeviceArray<unsigned> count(1, 0u);
  simt::launch("record_order", dim3(blocks), dim3(1), 0, nullptr, &record_order, order.data(),
               count.data());
  return order.values();
}

void test_order_of_blocks() {
  std::vector<unsigned> ascending(30);
  for (unsigned i = 0; i < 30; ++i) ascending[i] = i;
  CHECK(order_of_blocks(30) == ascending);
  simt::options().schedule = simt::Schedule::kRandom;
  simt::options().seed = 1;
  std::vector<unsigned> shuffled = order_of_blocks(30);
  CHECK(shuffled != ascending && shuffled == order_of_blocks(30), "the seed decides");
  simt::options().seed = 2;
  CHECK(shuffled != order_of_blocks(30));
  std::sort(shuffled.begin(), shuffled.end());
  CHECK(shuffled == ascending);
  CHECK(order_of_blocks(1) == std::vector<unsigned>{0});
  simt::options() = {};
}

}  // namespace

int main() {
  test_shapes();
  test_shared_limit();
  test_parameters();
  test_memory_of_kernels();
  test_exceptions();
  test_host_threads();
  test_order_of_blocks();
  return simt::test::finish();
}
