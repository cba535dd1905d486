// Cases of asynchronous copies and of shared memory: cp.async with and without zero fill, its
// groups, and the alignment of a block's storage.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "case.h"
#include "cuda/arch/async_copy.h"
#include "cuda/arch/launch.h"
#include "cuda/arch/shared.h"

namespace minference::gpu_test {
namespace {

// ---- cp_async_16: thread t copies t % 17 bytes of its 16, the rest must become zero -------------

constexpr int kCopyThreads = 136;  // 8 threads for each number of bytes from 0 to 16.

struct CopyTraits {
  struct Storage {
    alignas(16) uint32_t words[kCopyThreads][4];
  };
};

template <typename Traits>
__global__ void copy_kernel(const uint32_t* input, uint32_t* output) {
  auto& storage = arch::shared_storage<typename Traits::Storage>();
  const auto thread = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 4; ++i) storage.words[thread][i] = 0xdeadbeefU;  // The fill must replace it.
  __syncthreads();
  arch::cp_async_16(storage.words[thread], input + 4 * thread, thread % 17);
  arch::cp_async_commit();
  arch::cp_async_wait<0>();
  __syncthreads();  // A neighbour's copy is visible after its wait and a barrier.
  const int neighbour = (thread + 37) % kCopyThreads;
  for (int i = 0; i < 4; ++i) output[4 * neighbour + i] = storage.words[neighbour][i];
}

void expect_copies(std::span<const uint32_t> input, std::span<Expected> output) {
  for (std::size_t i = 0; i < output.size(); ++i) {
    const auto thread = static_cast<int>(i / 4);
    const int bytes = std::clamp(thread % 17 - 4 * static_cast<int>(i % 4), 0, 4);
    output[i].word = bytes == 4 ? input[i] : input[i] & ((1U << (8 * bytes)) - 1);
  }
}

// ---- Groups: of three, the first two have landed after wait<1> ----------------------------------

constexpr int kGroupThreads = 64;
constexpr int kGroups = 3;

struct GroupTraits {
  struct Storage {
    alignas(16) uint32_t words[kGroups][kGroupThreads][4];
  };
};

template <typename Traits>
__global__ void group_kernel(const uint32_t* input, uint32_t* output) {
  auto& storage = arch::shared_storage<typename Traits::Storage>();
  const auto thread = static_cast<int>(threadIdx.x);
  for (int group = 0; group < kGroups; ++group) {
    arch::cp_async_16(storage.words[group][thread], input + 4 * (group * kGroupThreads + thread));
    arch::cp_async_commit();
  }
  const auto store = [&](int group) {  // A thread sees its own copies without a barrier.
    for (int i = 0; i < 4; ++i) {
      output[4 * (group * kGroupThreads + thread) + i] = storage.words[group][thread][i];
    }
  };
  arch::cp_async_wait<1>();
  store(0);
  store(1);
  arch::cp_async_commit();  // An empty group also counts.
  arch::cp_async_wait<1>();
  store(2);
}

void expect_same(std::span<const uint32_t> input, std::span<Expected> output) {
  for (std::size_t i = 0; i < output.size(); ++i) output[i].word = input[i];
}

// ---- With 0 bytes the source is not read: it may be any address ---------------------------------

template <typename Traits>
__global__ void no_source_kernel(uint32_t* output) {
  auto& storage = arch::shared_storage<typename Traits::Storage>();
  const auto thread = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 4; ++i) storage.words[thread][i] = 0xdeadbeefU;
  arch::cp_async_16(storage.words[thread], nullptr, /*source_bytes=*/0);
  arch::cp_async_commit();
  arch::cp_async_wait<0>();
  for (int i = 0; i < 4; ++i) output[4 * thread + i] = storage.words[thread][i];
}

void expect_zeros(std::span<const uint32_t>, std::span<Expected> output) {
  for (Expected& expected : output) expected.word = 0;
}

// ---- The block's storage: 1024-byte aligned, its addresses consistent ---------------------------

struct StorageTraits {
  struct Storage {
    uint32_t words[512];
  };
};

template <typename Traits>
__global__ void storage_kernel(uint32_t* output) {
  auto& storage = arch::shared_storage<typename Traits::Storage>();
  const auto thread = static_cast<int>(threadIdx.x);
  const uint32_t base = arch::shared_address(&storage);
  output[2 * thread] = base % 1024;
  output[2 * thread + 1] = arch::shared_address(&storage.words[16 * thread]) - base;
}

void expect_addresses(std::span<const uint32_t>, std::span<Expected> output) {
  for (std::size_t i = 0; i < output.size(); ++i) {
    output[i].word = i % 2 == 0 ? 0 : static_cast<uint32_t>(i / 2 * 64);
  }
}

}  // namespace

CaseList copy_cases() {
  return {
      {.name = "shared_storage, shared_address",
       .min_arch = 80,
       .input_words = 1,
       .output_words = 64,
       .fill = &fill_random,
       .launch =
           [](const uint32_t*, uint32_t* output, cudaStream_t stream) {
             arch::launch("storage", &storage_kernel<StorageTraits>,
                          {dim3(1), dim3(32), sizeof(StorageTraits::Storage)}, stream, output);
           },
       .expect = &expect_addresses},
      {.name = "cp_async_16, 0 to 16 bytes and zero fill",
       .min_arch = 80,
       .input_words = 4 * kCopyThreads,
       .output_words = 4 * kCopyThreads,
       .fill = &fill_random,
       .launch =
           [](const uint32_t* input, uint32_t* output, cudaStream_t stream) {
             arch::launch("copy", &copy_kernel<CopyTraits>,
                          {dim3(1), dim3(kCopyThreads), sizeof(CopyTraits::Storage)}, stream, input,
                          output);
           },
       .expect = &expect_copies},
      {.name = "cp_async_commit, cp_async_wait",
       .min_arch = 80,
       .input_words = 4 * kGroups * kGroupThreads,
       .output_words = 4 * kGroups * kGroupThreads,
       .fill = &fill_random,
       .launch =
           [](const uint32_t* input, uint32_t* output, cudaStream_t stream) {
             arch::launch("group", &group_kernel<GroupTraits>,
                          {dim3(1), dim3(kGroupThreads), sizeof(GroupTraits::Storage)}, stream,
                          input, output);
           },
       .expect = &expect_same},
      {.name = "cp_async_16, no source",
       .min_arch = 80,
       .input_words = 1,
       .output_words = 4 * kCopyThreads,
       .fill = &fill_random,
       .launch =
           [](const uint32_t*, uint32_t* output, cudaStream_t stream) {
             arch::launch("no_source", &no_source_kernel<CopyTraits>,
                          {dim3(1), dim3(kCopyThreads), sizeof(CopyTraits::Storage)}, stream,
                          output);
           },
       .expect = &expect_zeros},
  };
}

}  // namespace minference::gpu_test
