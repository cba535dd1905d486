// Kernels whose threads do not meet where they should: deadlocks, masks, barriers, traps.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include "test.h"

namespace {

using simt::test::DeviceArray;
using simt::test::for_all_schedules;

constexpr unsigned kAll = 0xffffffffu;

__global__ void divergent_barrier(int) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else if (threadIdx.x == 40) {
    simt::named_barrier_sync(3, 64);
  } else {
    simt::named_barrier_sync(2, 96);
  }
}

__global__ void missing_lane(int) {
  if (threadIdx.x != 5) {
    __shfl_sync(kAll, 1, 0);
  } else {
    __syncthreads();
  }
}

__global__ void other_mask(int) { __syncwarp(threadIdx.x < 4 ? 0x1fu : 0xffu); }

__global__ void not_in_mask(int) {
  if (threadIdx.x == 7) __ballot_sync(0x7f, 1);
}

__global__ void other_collective(int) {
  if (threadIdx.x % 2 == 0) {
    __ballot_sync(kAll, 1);
  } else {
    __any_sync(kAll, 1);
  }
}

__global__ void absent_source(int) {
  if (threadIdx.x < 8) __shfl_sync(0xffu, 1, 8);
}

__global__ void bad_width(int width) { __shfl_sync(kAll, 1, 0, width); }

__global__ void vote_and_barrier(int) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads_or(1);
  }
}

__global__ void two_counts(int) { simt::named_barrier_sync(1, threadIdx.x < 32 ? 64 : 96); }

__global__ void bad_barrier(int id, int threads) { simt::named_barrier_sync(id, threads); }

// The barrier counts 32 threads, but they are two half warps.
__global__ void part_of_warp(int) { simt::named_barrier_sync(threadIdx.x % 2 == 0 ? 1 : 2, 32); }

__global__ void mma_in_part(int) {
  float c[4] = {};
  const uint32_t a[4] = {};
  const uint32_t b[2] = {};
  if (threadIdx.x == 3) return;
  simt::mma_m16n8k16(c, a, b, true);
}

__global__ void trap(int) {
  if (threadIdx.x == 33) __trap();
}

__global__ void wait_for_nothing(int* flag) {
  while (atomicAdd(flag, 0) == 0) {
  }
}

__global__ void launch_another(int) {
  simt::launch("inner", dim3(1), dim3(1), 0, nullptr, &trap, 0);
}

template <typename... Parameters>
std::string violation_of(const char* name, unsigned threads, void (*kernel)(Parameters...),
                         std::type_identity_t<Parameters>... arguments) {
  return simt::test::violation_of(
      [&] { simt::launch(name, dim3(2, 3), dim3(threads), 0, nullptr, kernel, arguments...); });
}

#define CHECK_TEXT(violation, ...)                                                 \
  do {                                                                             \
    const std::string text = (violation);                                          \
    CHECK(simt::test::contains(text, {"block (", "thread (", __VA_ARGS__}), text); \
  } while (false)

void test_deadlocks() {
  for_all_schedules([] {
    CHECK_TEXT(violation_of("divergent_barrier", 96, &divergent_barrier, 0),
               "kernel 'divergent_barrier'",
               "deadlock: threads 0-31 wait at __syncthreads() (32 of "
               "96 threads have arrived) [tests/test_violations_control.cu:",
               "]; threads 32-39 wait at named barrier 2 (63 of 96 threads have arrived) [",
               "]; thread 40 wait at named barrier 3 (1 of 64 threads have arrived) [",
               "]; threads 41-95 wait at named barrier 2");
    CHECK_TEXT(
        violation_of("missing_lane", 32, &missing_lane, 0), "kernel 'missing_lane'",
        "deadlock: threads 0-4 wait in __shfl_sync with mask 0xffffffff for lane 5 of warp 0",
        "thread 5 wait at __syncthreads() (1 of 32 threads have arrived)",
        "test_violations_control.cu:");
  });
  const DeviceArray<int> flag(1, 0);
  CHECK_TEXT(violation_of("wait_for_nothing", 2, &wait_for_nothing, flag.data()),
             "polls memory for something that no thread of the block does any more");
}

void test_masks() {
  for_all_schedules([] {
    CHECK_TEXT(violation_of("other_mask", 8, &other_mask, 0), "kernel 'other_mask'", "__syncwarp");
    CHECK_TEXT(
        violation_of("not_in_mask", 32, &not_in_mask, 0),
        "thread (7,0,0): calls __ballot_sync with mask 0x0000007f, in which its own lane 7 is "
        "not");
    CHECK_TEXT(violation_of("other_collective", 32, &other_collective, 0), "calls __",
               " of its warp wait for it in __");
    CHECK_TEXT(violation_of("absent_source", 32, &absent_source, 0),
               "reads from lane 8, which does not take part");
  });
  CHECK_TEXT(violation_of("bad_width", 32, &bad_width, 5), "calls __shfl_sync with width 5");
  CHECK_TEXT(violation_of("bad_width", 32, &bad_width, 64), "calls __shfl_sync with width 64");
}

void test_barriers() {
  for_all_schedules([] {
    CHECK_TEXT(violation_of("vote_and_barrier", 64, &vote_and_barrier, 0), "is at __syncthreads",
               "while others wait at __syncthreads");
    CHECK_TEXT(violation_of("two_counts", 96, &two_counts, 0), "is at named barrier 1 for",
               "threads, where others wait for");
    CHECK_TEXT(violation_of("part_of_warp", 64, &part_of_warp, 0), "completes named barrier ",
               " with only lanes ", ": whole warps must arrive");
  });
  for (auto [id, threads] : {std::pair(16, 32), {-1, 32}, {1, 33}, {1, 0}, {1, 96}, {1, -32}}) {
    CHECK_TEXT(violation_of("bad_barrier", 64, &bad_barrier, id, threads), "uses named barrier");
  }
}

void test_other() {
  for_all_schedules([] {
    CHECK_TEXT(violation_of("mma_in_part", 32, &mma_in_part, 0),
               "mma.m16n8k16, which needs all 32");
    CHECK_TEXT(violation_of("mma_in_part", 20, &mma_in_part, 0),
               "mma.m16n8k16, which needs all 32");
    CHECK_TEXT(violation_of("trap", 64, &trap, 0), "thread (33,0,0): traps");
  });
  CHECK_TEXT(violation_of("launch_another", 1, &launch_another, 0), "kernel 'launch_another'",
             "launches a kernel: not supported");
}

// Abandoned threads leave nothing behind: the next launch starts with a clean block.
__global__ void count(int* to) {
  if (__syncthreads_count(1) == 64 && threadIdx.x == 0) atomicAdd(to, 1);
}

void test_after_violations() {
  const DeviceArray<int> to(1, 0);
  for (int i = 0; i < 3; ++i) {
    violation_of("divergent_barrier", 96, &divergent_barrier, 0);
    violation_of("other_collective", 32, &other_collective, 0);
    simt::launch("count", dim3(4), dim3(64), 0, nullptr, &count, to.data());
  }
  CHECK(to[0] == 12);
}

void test_without_source_lines() {
  simt::options().locate = false;
  const std::string text = violation_of("trap", 64, &trap, 0);
  simt::options() = {};
  CHECK(text == "kernel 'trap', block (0,0,0), thread (33,0,0): traps", text);
}

}  // namespace

int main() {
  test_deadlocks();
  test_masks();
  test_barriers();
  test_other();
  test_after_violations();
  test_without_source_lines();
  return simt::test::finish();
}
