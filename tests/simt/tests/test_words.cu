// CUDA C++ built-ins of a block: indices, barriers, votes, atomics, fences, flags.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include <numeric>

#include "test.h"

namespace {

using simt::test::DeviceArray;
using simt::test::for_all_schedules;

template <typename T>
__device__ T* shared_array() {
  return static_cast<T*>(simt::dynamic_shared(sizeof(T), alignof(T)));
}

__global__ void write_indices(uint3* threads, uint3* blocks, dim3* extents) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned i = block * (blockDim.x * blockDim.y * blockDim.z) + thread;
  threads[i] = threadIdx;
  blocks[i] = blockIdx;
  if (i == 0) {
    extents[0] = gridDim;
    extents[1] = blockDim;
  }
}

void test_indices() {
  const dim3 grid(2, 3, 4);
  const dim3 block(5, 6, 2);
  const std::size_t count = 24 * 60;
  for_all_schedules([&] {
    const DeviceArray<uint3> threads(count);
    const DeviceArray<uint3> blocks(count);
    const DeviceArray<dim3> extents(2, dim3());
    simt::launch("write_indices", grid, block, 0, nullptr, &write_indices, threads.data(),
                 blocks.data(), extents.data());
    bool equal = true;
    for (unsigned i = 0; i < count; ++i) {
      const unsigned b = i / 60;
      const unsigned t = i % 60;
      equal &= threads[i].x == t % 5 && threads[i].y == t / 5 % 6 && threads[i].z == t / 30;
      equal &= blocks[i].x == b % 2 && blocks[i].y == b / 2 % 3 && blocks[i].z == b / 6;
    }
    CHECK(equal);
    CHECK(extents[0].x == 2 && extents[0].y == 3 && extents[0].z == 4);
    CHECK(extents[1].x == 5 && extents[1].y == 6 && extents[1].z == 2);
  });
  CHECK(threadIdx.x == 0 && blockDim.x == 0, "outside kernels");
}

// Each step reads what another thread wrote in the step before.
__global__ void rotate(int* values, int steps) {
  int* shared = static_cast<int*>(simt::dynamic_shared(blockDim.x * sizeof(int), alignof(int)));
  shared[threadIdx.x] = values[threadIdx.x];
  for (int step = 0; step < steps; ++step) {
    __syncthreads();
    const int next = shared[(threadIdx.x + 1) % blockDim.x];
    __syncthreads();
    shared[threadIdx.x] = next;
  }
  values[threadIdx.x] = shared[threadIdx.x];
}

void test_syncthreads() {
  for_all_schedules([] {
    for (unsigned threads : {1u, 31u, 64u, 100u, 1024u}) {
      std::vector<int> values(threads);
      std::iota(values.begin(), values.end(), 0);
      const DeviceArray<int> array(values);
      simt::launch("rotate", dim3(1), dim3(threads), threads * 4, nullptr, &rotate, array.data(),
                   7);
      bool equal = true;
      for (unsigned i = 0; i < threads; ++i) {
        equal &= array[i] == static_cast<int>((i + 7) % threads);
      }
      CHECK(equal, threads);
    }
  });
}

// Threads that have exited count as arrived.
__global__ void exit_early(int* result) {
  int* shared = shared_array<int>();
  if (threadIdx.x == 0) *shared = 0;
  __syncthreads();
  if (threadIdx.x % 3 == 0) return;
  atomicAdd(shared, 1);
  __syncthreads();
  if (threadIdx.x == 1) *result = *shared;
}

__global__ void vote(int* result) {
  const int i = static_cast<int>(threadIdx.x);
  const int odd = __syncthreads_count(i % 2);
  const int all = __syncthreads_and(i >= 0) + 2 * __syncthreads_and(i > 0);
  const int any = __syncthreads_or(i == 70) + 2 * __syncthreads_or(i < 0);
  if (i == 5) {
    result[0] = odd;
    result[1] = all;
    result[2] = any;
  }
}

void test_barriers_and_votes() {
  for_all_schedules([] {
    const DeviceArray<int> result(3);
    simt::launch("exit_early", dim3(1), dim3(100), 4, nullptr, &exit_early, result.data());
    CHECK(result[0] == 66, result[0]);
    simt::launch("vote", dim3(1), dim3(101), 0, nullptr, &vote, result.data());
    CHECK(result[0] == 50 && result[1] == 1 && result[2] == 1, result[0], result[1], result[2]);
  });
}

struct Ring {
  static constexpr int kStages = 2;
  int stage[kStages][32];
};

// Warp 0 produces, warp 1 consumes. Barriers 1, 2: stage s is full; 3, 4: stage s is empty.
__global__ void produce_and_consume(int* sums, int count) {
  auto& ring = *shared_array<Ring>();
  const unsigned lane = threadIdx.x % 32;
  const bool produces = threadIdx.x < 32;
  int sum = 0;
  for (int i = 0; i < count; ++i) {
    const int stage = i % Ring::kStages;
    if (produces) {
      if (i >= Ring::kStages) simt::named_barrier_sync(3 + stage, 64);
      ring.stage[stage][lane] = i * static_cast<int>(lane);
      simt::named_barrier_arrive(1 + stage, 64);
    } else {
      simt::named_barrier_sync(1 + stage, 64);
      sum += ring.stage[stage][31 - lane];
      if (i + Ring::kStages < count) simt::named_barrier_arrive(3 + stage, 64);
    }
  }
  if (!produces) sums[lane] = sum;
}

void test_named_barriers() {
  for_all_schedules([] {
    const DeviceArray<int> sums(32);
    simt::launch("produce_and_consume", dim3(1), dim3(64), sizeof(Ring), nullptr,
                 &produce_and_consume, sums.data(), 10);
    bool equal = true;
    for (int lane = 0; lane < 32; ++lane) {
      equal &= sums[static_cast<std::size_t>(lane)] == 45 * (31 - lane);
    }
    CHECK(equal);
  });
}

/// Each pair of warps votes on its own, round by round.
__global__ void vote_in_pairs(int* votes, int rounds) {
  const int pair = static_cast<int>(threadIdx.x) / 64;
  for (int round = 0; round < rounds; ++round) {
    const bool raises = static_cast<int>(threadIdx.x) == 64 * pair + 7 * round && round % 2 == pair;
    votes[rounds * static_cast<int>(threadIdx.x) + round] =
        simt::named_barrier_or(1 + pair, 64, raises) ? 1 : 0;
  }
}

void test_votes_at_named_barriers() {
  constexpr int kThreads = 128, kRounds = 9;
  for_all_schedules([] {
    const DeviceArray<int> votes(kThreads * kRounds);
    simt::launch("vote_in_pairs", dim3(1), dim3(kThreads), 0, nullptr, &vote_in_pairs, votes.data(),
                 kRounds);
    bool right = true;
    for (int thread = 0; thread < kThreads; ++thread) {
      for (int round = 0; round < kRounds; ++round) {
        right &= votes[static_cast<std::size_t>(kRounds * thread + round)] ==
                 (round % 2 == thread / 64 ? 1 : 0);
      }
    }
    CHECK(right);
  });
}

struct AtomicResults {
  int add, sub, least, most, exchanged, swapped;
  unsigned bits_and, bits_or, bits_xor, increment, decrement;
  unsigned long long add_64, most_64;
  float add_float;
  double add_double;
  long long least_64;
};

__global__ void update(AtomicResults* r) {
  const int i = static_cast<int>(threadIdx.x);
  atomicAdd(&r->add, i);
  atomicSub(&r->sub, i);
  atomicMin(&r->least, -i);
  atomicMax(&r->most, i);
  atomicExch(&r->exchanged, 7);
  atomicCAS(&r->swapped, i, i + 1);  // One thread succeeds for each value in sequence.
  atomicAnd(&r->bits_and, ~(1u << (i % 32)));
  atomicOr(&r->bits_or, 1u << (i % 32));
  atomicXor(&r->bits_xor, 1u << (i % 32));
  atomicInc(&r->increment, 9);
  atomicDec(&r->decrement, 9);
  atomicAdd(&r->add_64, 1ull << 33);
  atomicMax(&r->most_64, static_cast<unsigned long long>(i) << 40);
  atomicMin(&r->least_64, -(static_cast<long long>(i) << 40));
  atomicAdd(&r->add_float, 0.5f);
  atomicAdd(&r->add_double, 0.25);
}

void test_atomics() {
  for_all_schedules([] {
    AtomicResults initial{};
    initial.bits_and = ~0u;
    const DeviceArray<AtomicResults> results(1, initial);
    simt::launch("update", dim3(2), dim3(48), 0, nullptr, &update, results.data());
    const AtomicResults& r = results[0];
    CHECK(r.add == 2 * 1128 && r.sub == -2 * 1128 && r.least == -47 && r.most == 47);
    CHECK(r.exchanged == 7 && r.swapped >= 1 && r.swapped <= 48);
    CHECK(r.bits_and == 0 && r.bits_or == ~0u && r.bits_xor == 0);  // Each bit 2 or 4 times.
    CHECK(r.increment == 96 % 10 && r.decrement == (100 - 96) % 10, r.increment, r.decrement);
    CHECK(r.add_64 == 96ull << 33 && r.most_64 == 47ull << 40 && r.least_64 == -(47ll << 40));
    CHECK(r.add_float == 48.0f && r.add_double == 24.0);
  });
}

struct Mailbox {
  int data;
  volatile int full;
};

// Thread 32 waits for a flag that thread 0 sets: fences order what is around the flags.
[[maybe_unused]] __global__ void pass_flag(int* result) {
  auto& box = *shared_array<Mailbox>();
  if (threadIdx.x == 0) box.full = 0;
  __syncthreads();
  if (threadIdx.x == 0) {
    box.data = 42;
    __threadfence_block();
    box.full = 1;
  } else if (threadIdx.x == 32) {
    while (box.full == 0) {
    }
    __threadfence_block();
    *result = box.data;
  }
}

__global__ void pass_lock(int* result) {
  int* shared = static_cast<int*>(simt::dynamic_shared(8, 4));  // Lock, counter.
  if (threadIdx.x == 0) shared[0] = shared[1] = 0;
  __syncthreads();
  while (atomicCAS(&shared[0], 0, 1) != 0) __nanosleep(100);
  __threadfence();
  shared[1] += 1;
  __threadfence();
  atomicExch(&shared[0], 0);
  __syncthreads();
  if (threadIdx.x == 0) *result = shared[1];
}

// The last block to arrive sums what the others wrote.
__global__ void last_block_sums(int* partial, unsigned* arrived, int* result) {
  if (threadIdx.x != 0) return;
  partial[blockIdx.x] = static_cast<int>(blockIdx.x) + 1;
  __threadfence();
  if (atomicAdd(arrived, 1u) != gridDim.x - 1) return;
  int sum = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) sum += partial[i];
  *result = sum;
}

void test_flags() {
  for_all_schedules([] {
    const DeviceArray<int> result(1);
#if defined(SIMT_INSTRUMENTED)  // Otherwise nothing sees the loop, and it would never end.
    simt::launch("pass_flag", dim3(1), dim3(64), sizeof(Mailbox), nullptr, &pass_flag,
                 result.data());
    CHECK(result[0] == 42);
#endif
    simt::launch("pass_lock", dim3(1), dim3(64), 8, nullptr, &pass_lock, result.data());
    CHECK(result[0] == 64);
    const DeviceArray<int> partial(10);
    const DeviceArray<unsigned> arrived(1, 0u);
    simt::launch("last_block_sums", dim3(10), dim3(32), 0, nullptr, &last_block_sums,
                 partial.data(), arrived.data(), result.data());
    CHECK(result[0] == 55);
  });
}

__global__ void look_at_shared(uint32_t* addresses) {
  auto* shared = static_cast<char*>(simt::dynamic_shared(2048, 1024));
  addresses[0] = simt::shared_address(shared);
  addresses[1] = simt::shared_address(shared + 100) - addresses[0];
  addresses[2] = simt::shared_pointer(addresses[0] + 100) == shared + 100 ? 1 : 0;
  addresses[3] = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(shared) % 1024);
  const long long begin = clock64();
  addresses[4] = clock64() > begin ? 1 : 0;
}

void test_shared_addresses() {
  const DeviceArray<uint32_t> addresses(5);
  simt::launch("look_at_shared", dim3(1), dim3(1), 2048, nullptr, &look_at_shared,
               addresses.data());
  CHECK(addresses[0] % 1024 == 0 && addresses[0] > 0);
  CHECK(addresses[1] == 100 && addresses[2] == 1 && addresses[3] == 0 && addresses[4] == 1);
}

}  // namespace

int main() {
  test_indices();
  test_syncthreads();
  test_barriers_and_votes();
  test_named_barriers();
  test_votes_at_named_barriers();
  test_atomics();
  test_flags();
  test_shared_addresses();
  return simt::test::finish();
}
