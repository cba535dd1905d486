// Device memory from the host's side.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime_api.h>

#include <cstring>
#include <new>
#include <stdexcept>

#include "device_heap.h"
#include "test.h"

namespace {

bool throws_invalid_argument(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::invalid_argument&) {
    return true;
  }
  return false;
}

void test_allocation() {
  const std::size_t before = simt::num_allocations();
  auto* a = static_cast<char*>(simt::device_malloc(1000));
  auto* b = static_cast<char*>(simt::device_malloc(1));
  CHECK(simt::num_allocations() == before + 2);
  CHECK(reinterpret_cast<uintptr_t>(a) % 256 == 0 && reinterpret_cast<uintptr_t>(b) % 256 == 0);
  CHECK(b >= a + 1256 || a >= b + 257, "neighbours are kept apart");
  CHECK(simt::device_malloc(0) == nullptr);
  CHECK(throws_invalid_argument([&] { simt::device_free(a + 1); }));
  simt::device_free(nullptr);
  simt::device_free(a);
  CHECK(throws_invalid_argument([&] { simt::device_free(a); }));
  auto* c = static_cast<char*>(simt::device_malloc(1000));
  CHECK(c != a, "freed memory is not used again at once");
  simt::device_free(b);
  simt::device_free(c);
  CHECK(simt::num_allocations() == before);
}

void test_exhaustion() {
  bool thrown = false;
  try {
    simt::device_malloc(std::size_t{1} << 50);
  } catch (const std::bad_alloc&) {
    thrown = true;
  }
  CHECK(thrown);
  void* pointer = nullptr;
  CHECK(cudaMalloc(&pointer, std::size_t{1} << 50) == cudaErrorMemoryAllocation);
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
}

// A small heap is used up, fragmented, and reused.
void test_reuse() {
  constexpr std::size_t kCapacity = std::size_t{1} << 20;
  simt::engine::DeviceHeap heap(kCapacity);
  std::vector<void*> live;
  const auto fill = [&](std::size_t bytes) {
    try {
      while (true) live.push_back(heap.allocate(bytes, 0));
    } catch (const std::bad_alloc&) {
      return live.size();
    }
  };
  const std::size_t first = fill(10000);
  CHECK(first > 60 && first <= kCapacity / 10000, first);
  for (std::size_t i = 0; i < live.size(); i += 2) CHECK(heap.release(live[i]));
  std::size_t kept = 0;
  for (std::size_t i = 1; i < live.size(); i += 2) live[kept++] = live[i];
  live.resize(kept);
  CHECK(fill(10000) == first, "every gap is used again");
  for (void* pointer : live) CHECK(heap.release(pointer));
  live.clear();
  CHECK(fill(500000) == 2 && heap.num_allocations() == 2);
  CHECK(!heap.release(static_cast<char*>(live[0]) + 256) && !heap.release(&live));
}

void test_initialized() {
  auto* a = static_cast<char*>(simt::device_malloc(100));
  CHECK(simt::first_uninitialized(a, 100) == 0);
  simt::mark_initialized(a, 40);
  CHECK(simt::first_uninitialized(a, 100) == 40);
  CHECK(simt::first_uninitialized(a, 40) == 40);
  CHECK(throws_invalid_argument([&] { simt::mark_initialized(a, 101); }));
  CHECK(throws_invalid_argument([&] { simt::mark_initialized(a - 1, 2); }));
  int local = 0;
  CHECK(throws_invalid_argument([&] { simt::mark_initialized(&local, 4); }));
  CHECK(throws_invalid_argument([&] { simt::first_uninitialized(&local, 4); }));
  CHECK(cudaMemset(a + 40, 7, 20) == cudaSuccess && a[40] == 7 && a[59] == 7);
  CHECK(simt::first_uninitialized(a, 100) == 60);
  const char text[40] = "from the host";
  CHECK(cudaMemcpy(a + 60, text, 40, cudaMemcpyHostToDevice) == cudaSuccess);
  CHECK(std::strcmp(a + 60, text) == 0);
  CHECK(simt::first_uninitialized(a, 100) == 100);
  simt::device_free(a);
  auto* b = static_cast<char*>(simt::device_malloc(100));
  CHECK(simt::first_uninitialized(b, 100) == 0);
  simt::device_free(b);
}

void test_copies() {
  const simt::test::DeviceArray<int> a(std::vector<int>{1, 2, 3, 4});
  const simt::test::DeviceArray<int> b(4);
  int host[4] = {};
  CHECK(cudaMemcpy(b.data(), a.data(), 16, cudaMemcpyDeviceToDevice) == cudaSuccess);
  CHECK(cudaMemcpy(host, b.data(), 16, cudaMemcpyDeviceToHost) == cudaSuccess && host[3] == 4);
  CHECK(cudaMemcpy(host, b.data(), 16, cudaMemcpyDefault) == cudaSuccess);
  CHECK(cudaMemcpy(host, b.data(), 17, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(host, host, 4, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(host, host + 1, 4, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(host, host, 4, static_cast<cudaMemcpyKind>(9)) ==
        cudaErrorInvalidMemcpyDirection);
  CHECK(cudaMemcpy(nullptr, nullptr, 0, cudaMemcpyDefault) == cudaSuccess);
  CHECK(cudaMemset(a.data(), 0, 17) == cudaErrorInvalidValue);
  CHECK(cudaMemset(host, 0, 4) == cudaErrorInvalidValue);
  CHECK(cudaFree(a.data() + 1) == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue && cudaGetLastError() == cudaSuccess);
}

}  // namespace

int main() {
  test_allocation();
  test_exhaustion();
  test_reuse();
  test_initialized();
  test_copies();
  return simt::test::finish();
}
