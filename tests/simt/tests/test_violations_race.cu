// Races on shared memory: every missing barrier is reported under every schedule, and ordered
// accesses are not.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include <stdexcept>

#include "test.h"

namespace {

using simt::test::DeviceArray;
using simt::test::for_all_schedules;

template <typename T>
__device__ T* shared_array(std::size_t count) {
  return static_cast<T*>(simt::dynamic_shared(count * sizeof(T), alignof(T)));
}

/// How the two accesses of a kernel are ordered.
enum class Order { kBlock, kWarp, kNamed, kNone, kShuffle, kOtherWarp };

__device__ void order(Order how) {
  switch (how) {
    case Order::kBlock:
      __syncthreads();
      break;
    case Order::kWarp:
      __syncwarp();
      break;
    case Order::kNamed:
      simt::named_barrier_sync(1, 64);
      break;
    case Order::kShuffle:
      __shfl_sync(0xffffffffu, 0, 0);  // Brings lanes together, and orders no memory.
      break;
    case Order::kOtherWarp:
      if (threadIdx.x >= 32) __syncwarp();
      break;
    case Order::kNone:
      break;
  }
}

// Every thread writes; its neighbour at some distance reads.
__global__ void write_read(int* to, int distance, Order how) {
  int* shared = shared_array<int>(64);
  shared[threadIdx.x] = 0;
  __syncthreads();
  shared[threadIdx.x] = 1;
  order(how);
  to[threadIdx.x] = shared[threadIdx.x ^ static_cast<unsigned>(distance)];
}

// Every thread reads; then its neighbour writes.
__global__ void read_write(int* to, int distance, Order how) {
  int* shared = shared_array<int>(64);
  shared[threadIdx.x] = 0;
  __syncthreads();
  to[threadIdx.x] = shared[threadIdx.x ^ static_cast<unsigned>(distance)];
  order(how);
  shared[threadIdx.x] = 1;
}

__global__ void write_write(int* to, int distance, Order how) {
  int* shared = shared_array<int>(64);
  shared[threadIdx.x] = 0;
  order(how);
  shared[threadIdx.x ^ static_cast<unsigned>(distance)] = 1;
  to[threadIdx.x] = 0;
}

using Kernel = void (*)(int*, int, Order);

std::string race_of(Kernel kernel, int distance, Order how) {
  const DeviceArray<int> to(64);
  return simt::test::violation_of([&] {
    simt::launch("kernel", dim3(2), dim3(64), 256, nullptr, kernel, to.data(), distance, how);
  });
}

void test_missing_barriers() {
  for_all_schedules([] {
    for (Kernel kernel : {&write_read, &read_write, &write_write}) {
      for (int distance : {1, 32}) {
        for (Order how : {Order::kBlock, Order::kNamed}) {
          CHECK(race_of(kernel, distance, how) == "", distance);
        }
        for (Order how : {Order::kNone, Order::kShuffle, Order::kOtherWarp}) {
          const std::string text = race_of(kernel, distance, how);
          CHECK(simt::test::contains(text, {"kernel 'kernel', block (", "thread (",
                                            " 4 bytes of "
                                            "shared memory at offset ",
                                            ", a race: thread (", "nothing orders the two",
                                            "test_violations_race.cu:"}),
                text, distance);
        }
      }
      CHECK(race_of(kernel, 1, Order::kWarp) == "");
      CHECK(simt::test::contains(race_of(kernel, 32, Order::kWarp), {"a race"}));
    }
  });
}

void test_text() {
  const std::string text = race_of(&write_read, 32, Order::kNone);
  CHECK(
      simt::test::contains(
          text, {"kernel 'kernel', block (0,0,0), thread (32,0,0): writes 4 bytes of shared memory "
                 "at offset 128, a race: thread (0,0,0) read them too, and nothing orders the two "
                 "[tests/test_violations_race.cu:"}),
      text);
}

// All threads read the same word, then one of them writes it.
__global__ void broadcast(int* to, bool barrier) {
  int* shared = shared_array<int>(1);
  if (threadIdx.x == 0) *shared = 1;
  __syncthreads();
  to[threadIdx.x] = *shared;
  if (barrier) __syncthreads();
  if (threadIdx.x == 0) *shared = 2;
}

// The classic pipeline bug: a stage is loaded again while other threads still read it.
__global__ void reload(const int* from, int* to, bool barrier) {
  int* shared = shared_array<int>(64);
  for (int tile = 0; tile < 3; ++tile) {
    if (barrier) __syncthreads();
    if (threadIdx.x < 16) simt::cp_async(shared + threadIdx.x * 4, from + threadIdx.x * 4, 16, 16);
    simt::cp_async_commit();
    simt::cp_async_wait(0);
    __syncthreads();
    to[threadIdx.x] = shared[63 - threadIdx.x];
  }
}

// The thread that waits for a copy has its bytes; the others need a barrier after that.
__global__ void no_barrier_after_wait(const int* from, int* to) {
  int* shared = shared_array<int>(64);
  if (threadIdx.x < 16) simt::cp_async(shared + threadIdx.x * 4, from + threadIdx.x * 4, 16, 16);
  simt::cp_async_commit();
  simt::cp_async_wait(0);
  to[threadIdx.x] = shared[threadIdx.x];
}

__global__ void atomics(int* to, bool barrier) {
  int* shared = shared_array<int>(1);
  if (threadIdx.x == 0) *shared = 0;
  __syncthreads();
  atomicAdd(shared, 1);
  if (barrier) __syncthreads();
  to[threadIdx.x] = *shared;
}

struct Flagged {
  int data;
  volatile int flag;
};

__global__ void flag(int* to, bool writer_fences, bool reader_fences) {
  auto* shared = shared_array<Flagged>(1);
  if (threadIdx.x == 0) shared->flag = 0;
  __syncthreads();
  if (threadIdx.x == 0) {
    shared->data = 1;
    if (writer_fences) __threadfence_block();
    shared->flag = 1;
  } else if (threadIdx.x == 40) {
    while (shared->flag == 0) {
    }
    if (reader_fences) __threadfence_block();
    to[0] = shared->data;
  }
}

template <typename... Parameters>
bool races(void (*kernel)(Parameters...), std::type_identity_t<Parameters>... arguments) {
  const std::string text = simt::test::violation_of(
      [&] { simt::launch("kernel", dim3(1), dim3(64), 256, nullptr, kernel, arguments...); });
  const bool is_race = text.find("race") != std::string::npos;
  CHECK(is_race || text.empty() || text.find("has not been waited for") != std::string::npos, text);
  return !text.empty();
}

void test_other_races() {
  for_all_schedules([] {
    const DeviceArray<int> from(64, 1);
    const DeviceArray<int> to(64);
    CHECK(races(&broadcast, to.data(), false) && !races(&broadcast, to.data(), true));
    CHECK(races(&reload, from.data(), to.data(), false));
    CHECK(!races(&reload, from.data(), to.data(), true));
    CHECK(races(&no_barrier_after_wait, from.data(), to.data()));
    CHECK(races(&atomics, to.data(), false) && !races(&atomics, to.data(), true));
    CHECK(!races(&flag, to.data(), true, true));
    CHECK(races(&flag, to.data(), false, true) && races(&flag, to.data(), true, false));
  });
}

// ldmatrix and mma bring lanes together; they order no memory.
__global__ void rows(int* to, bool barrier) {
  auto* shared = shared_array<uint16_t>(256);
  for (int i = 0; i < 8; ++i) shared[threadIdx.x * 8 + static_cast<unsigned>(i)] = 0;
  if (barrier) __syncwarp();
  uint32_t fragment[4];
  simt::ldmatrix(fragment, 4, false, shared + (31 - threadIdx.x) * 8);
  to[threadIdx.x] = static_cast<int>(fragment[0]);
}

void test_matrices() {
  const DeviceArray<int> to(32);
  const auto launch_rows = [&](bool barrier) {
    simt::launch("rows", dim3(1), dim3(32), 512, nullptr, &rows, to.data(), barrier);
  };
  CHECK_VIOLATION(launch_rows(false), "kernel 'rows'", "reads 16 bytes of shared memory", "a race");
  CHECK(simt::test::violation_of([&] { launch_rows(true); }) == "");
}

// Pairs of warps hand a buffer on; only the middle one orders the first and the last.
__global__ void chain(int* to, bool whole) {
  int* shared = shared_array<int>(32);
  const unsigned warp = threadIdx.x / 32;
  const unsigned lane = threadIdx.x % 32;
  if (warp == 0) {
    shared[lane] = 7;
    simt::named_barrier_arrive(1, 64);
  } else if (warp == 1) {
    if (whole) simt::named_barrier_sync(1, 64);
    simt::named_barrier_arrive(2, 64);
    if (!whole) simt::named_barrier_sync(1, 64);
  } else {
    simt::named_barrier_sync(2, 64);
    to[lane] = shared[31 - lane];
  }
}

void test_transitive_order() {
  for_all_schedules([] {
    const DeviceArray<int> to(32);
    const auto launch_chain = [&](bool whole) {
      simt::launch("chain", dim3(1), dim3(96), 128, nullptr, &chain, to.data(), whole);
    };
    CHECK(simt::test::violation_of([&] { launch_chain(true); }) == "");
    // Without that order the last warp may also run first, and find nothing written.
    const std::string text = simt::test::violation_of([&] { launch_chain(false); });
    CHECK(simt::test::contains(text, {"kernel 'chain'"}), text);
  });
}

// Two lanes hand words to each other, and only that orders them.
__global__ void many_barriers(int* to, int count) {
  int* shared = shared_array<int>(2);
  for (int i = 0; i < count; ++i) {
    shared[threadIdx.x] = i;
    __syncwarp();
    to[threadIdx.x] = shared[threadIdx.x ^ 1];
    __syncwarp();
  }
}

// More barriers than a clock can count: in launches that each stay below it, and in one launch.
void test_long_runs() {
  const DeviceArray<int> to(2);
  const auto launch_many = [&](int count) {
    simt::launch("many_barriers", dim3(1), dim3(2), 256, nullptr, &many_barriers, to.data(), count);
  };
  for (int launches = 0; launches < 12; ++launches) {
    CHECK(simt::test::violation_of([&] { launch_many(60000); }) == "", launches);
  }
  CHECK(race_of(&write_read, 1, Order::kNone) != "");
  std::string text;
  try {
    launch_many(600000);
  } catch (const std::length_error& error) {
    text = error.what();
  }
  CHECK(simt::test::contains(text, {"more often than its race checker can count"}), text);
  CHECK(race_of(&write_read, 1, Order::kBlock) == "");
  CHECK(race_of(&write_read, 1, Order::kNone) != "");
}

void test_check_can_be_off() {
  simt::options().check_races = false;
  CHECK(race_of(&read_write, 1, Order::kNone) == "");
  simt::options() = {};
}

}  // namespace

int main() {
  test_missing_barriers();
  test_text();
  test_other_races();
  test_matrices();
  test_transitive_order();
  test_long_runs();
  test_check_can_be_off();
  return simt::test::finish();
}
