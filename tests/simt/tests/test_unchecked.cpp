// A kernel in a source file that is not instrumented: it runs, and library calls are still checked.
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

__global__ void update_nothing() { atomicAdd(static_cast<int*>(nullptr), 1); }

}  // namespace

int main() {
  const DeviceArray<int> values(std::vector<int>{1, 2, 3, 4, 5});
  simt::launch("reverse", dim3(1), dim3(5), 20, nullptr, &reverse, values.data());
  CHECK(values.values() == std::vector<int>({5, 4, 3, 2, 1}));
  CHECK_VIOLATION(simt::launch("update_nothing", dim3(1), dim3(1), 0, nullptr, &update_nothing),
                  "kernel 'update_nothing', block (0,0,0), thread (0,0,0)", "a null pointer");
  CHECK_VIOLATION(__syncthreads(), "a device function was called outside a kernel");
  return simt::test::finish();
}
