// Device memory as host code sees it.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime_api.h>

#include <cstring>
#include <new>
#include <stdexcept>

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

// Far more than the range holds, if nothing were used twice.
void test_reuse() {
  constexpr std::size_t kBytes = std::size_t{3} << 30;
  for (int i = 0; i < 100; ++i) {
    auto* memory = static_cast<char*>(simt::device_malloc(kBytes));
    memory[0] = 1;
    memory[kBytes - 1] = 1;
    simt::device_free(memory);
  }
  CHECK(true, "allocated again and again");
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
