// A kernel in a source file that is not instrumented runs, and its library calls are still checked.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include "test.h"

namespace {

using simt::test::DeviceArray;

__global__ void reverse(int* values) {
  int* shared = static_cast<int*>(simt::dynamic_shared(blockDim.x * 4, 4));
  shared[threadIdx.x] = values[threadIdx.x];
  __syncthreads();
  values[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

// Library calls on memory whose writes and order the library has not seen.
__global__ void mix(int* values, volatile int* flag) {
  int* shared = static_cast<int*>(simt::dynamic_shared(1024, 16));
  for (unsigned i = threadIdx.x; i < 256; i += blockDim.x) shared[i] = 0;
  __syncthreads();
  atomicAdd(&shared[0], 1);
  __syncthreads();
  if (threadIdx.x < 32) {
    uint32_t fragment[4];
    simt::ldmatrix(fragment, 4, false, shared + threadIdx.x * 4);
    values[threadIdx.x] = static_cast<int>(fragment[0]);
    __threadfence();
    *flag = 1;
  } else {
    while (*flag == 0) __nanosleep(1);
    simt::cp_async(shared + threadIdx.x * 4, values, 16, 16);
    simt::cp_async_wait_all();
    atomicAdd(&shared[threadIdx.x * 4], 1);
  }
}

__global__ void update_nothing() { atomicAdd(static_cast<int*>(nullptr), 1); }

}  // namespace

int main() {
  const DeviceArray<int> values(std::vector<int>{1, 2, 3, 4, 5});
  simt::launch("reverse", dim3(1), dim3(5), 20, nullptr, &reverse, values.data());
  CHECK(values.values() == std::vector<int>({5, 4, 3, 2, 1}));
  const DeviceArray<int> mixed(32);
  const DeviceArray<int> flag(1, 0);
  simt::launch("mix", dim3(1), dim3(64), 1024, nullptr, &mix, mixed.data(), flag.data());
  CHECK(mixed[0] == 64 && mixed[1] == 0);
  CHECK_VIOLATION(simt::launch("update_nothing", dim3(1), dim3(1), 0, nullptr, &update_nothing),
                  "kernel 'update_nothing', block (0,0,0), thread (0,0,0)", "a null pointer");
  CHECK_VIOLATION(__syncthreads(), "a device function was called outside a kernel");
  return simt::test::finish();
}
