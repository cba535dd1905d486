// CUDA C++ built-ins of a warp: shuffles, votes, reductions, masks, divergent lanes.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include "test.h"

namespace {

using simt::test::DeviceArray;
using simt::test::for_all_schedules;

constexpr unsigned kAll = 0xffffffffu;

template <typename T>
__global__ void shuffle(T* results, int operand, int width) {
  const unsigned lane = threadIdx.x;
  const T value = static_cast<T>(lane) + static_cast<T>(0.5);
  results[lane] = __shfl_sync(kAll, value, operand, width);
  results[32 + lane] = __shfl_up_sync(kAll, value, static_cast<unsigned>(operand), width);
  results[64 + lane] = __shfl_down_sync(kAll, value, static_cast<unsigned>(operand), width);
  results[96 + lane] = __shfl_xor_sync(kAll, value, operand, width);
}

// Written from CUDA's documentation: segments of `width` lanes; a lane that would read outside its
// segment gets its own value.
int expected_source(int kind, int lane, int operand, int width) {
  const int segment = lane / width * width;
  const int inside = lane % width;
  if (kind == 0) return segment + (operand % width + width) % width;
  if (kind == 1) return inside - operand >= 0 ? lane - operand : lane;
  if (kind == 2) return inside + operand < width ? lane + operand : lane;
  return (lane ^ operand) < segment + width ? lane ^ operand : lane;
}

template <typename T>
void test_shuffles() {
  for (int width : {1, 2, 4, 8, 16, 32}) {
    for (int operand : {0, 1, 3, 8, 17, 31}) {
      const DeviceArray<T> results(128);
      simt::launch("shuffle", dim3(1), dim3(32), 0, nullptr, &shuffle<T>, results.data(), operand,
                   width);
      bool equal = true;
      for (int i = 0; i < 128; ++i) {
        const int source = expected_source(i / 32, i % 32, operand, width);
        const T want = static_cast<T>(source) + static_cast<T>(0.5);
        equal &= results[static_cast<std::size_t>(i)] == want;
      }
      CHECK(equal, width, operand, sizeof(T));
    }
  }
}

struct Pair {
  int first;
  float second;
};

__global__ void shuffle_pairs(Pair* results) {
  const int lane = static_cast<int>(threadIdx.x);
  results[lane] = __shfl_sync(kAll, Pair{lane, static_cast<float>(-lane)}, lane + 1);
}

void test_struct_shuffle() {
  const DeviceArray<Pair> results(32);
  simt::launch("shuffle_pairs", dim3(1), dim3(32), 0, nullptr, &shuffle_pairs, results.data());
  CHECK(results[3].first == 4 && results[3].second == -4.0f && results[31].first == 0);
}

__global__ void vote(unsigned* results) {
  const unsigned lane = threadIdx.x;
  results[lane * 8] = __ballot_sync(kAll, lane % 3 == 0);
  results[lane * 8 + 1] = static_cast<unsigned>(__any_sync(kAll, lane == 7));
  results[lane * 8 + 2] = static_cast<unsigned>(__any_sync(kAll, lane == 32));
  results[lane * 8 + 3] = static_cast<unsigned>(__all_sync(kAll, lane < 32));
  results[lane * 8 + 4] = static_cast<unsigned>(__all_sync(kAll, lane < 31));
  results[lane * 8 + 5] = __match_any_sync(kAll, lane % 4);
  results[lane * 8 + 6] = __match_any_sync(kAll, static_cast<double>(lane / 16));
  results[lane * 8 + 7] = __activemask() >> lane & 1;
}

void test_votes() {
  for_all_schedules([] {
    const DeviceArray<unsigned> results(256);
    simt::launch("vote", dim3(1), dim3(32), 0, nullptr, &vote, results.data());
    bool equal = true;
    for (unsigned lane = 0; lane < 32; ++lane) {
      const unsigned want[8] = {
          0x49249249u, 1, 0, 1, 0, 0x11111111u << (lane % 4), lane < 16 ? 0xffffu : 0xffff0000u, 1};
      for (unsigned i = 0; i < 8; ++i) equal &= results[lane * 8 + i] == want[i];
    }
    CHECK(equal);
  });
}

__global__ void reduce(int* results) {
  const int lane = static_cast<int>(threadIdx.x);
  const auto bit = static_cast<unsigned>(lane);
  const int values[] = {__reduce_add_sync(kAll, lane - 16),
                        __reduce_min_sync(kAll, lane - 16),
                        __reduce_max_sync(kAll, lane - 16),
                        static_cast<int>(__reduce_add_sync(kAll, bit)),
                        static_cast<int>(__reduce_min_sync(kAll, bit - 16) == 0),
                        static_cast<int>(__reduce_max_sync(kAll, bit - 16) == kAll),
                        static_cast<int>(__reduce_and_sync(kAll, bit | 0x80)),
                        static_cast<int>(__reduce_or_sync(kAll, bit)),
                        static_cast<int>(__reduce_xor_sync(kAll, bit | (lane == 3 ? 0x40u : 0u)))};
  if (lane == 9) {
    for (int i = 0; i < 9; ++i) results[i] = values[i];
  }
}

void test_reductions() {
  const DeviceArray<int> results(9);
  simt::launch("reduce", dim3(1), dim3(32), 0, nullptr, &reduce, results.data());
  CHECK(results.values() == std::vector<int>({-16, -16, 15, 496, 1, 1, 0x80, 31, 0x40}));
}

// Even and odd lanes take different paths and meet again; so do the lanes of the two halves.
__global__ void diverge(int* results) {
  const unsigned lane = threadIdx.x % 32;
  int value = static_cast<int>(threadIdx.x);
  if (lane % 2 == 0) {
    value = __shfl_xor_sync(0x55555555u, value, 2);
    __syncwarp(0x55555555u);
  } else {
    for (unsigned i = 0; i < lane; ++i)
      value = __shfl_sync(1u << lane, value, static_cast<int>(lane));
    value = -value;
  }
  __syncwarp();
  if (lane < 16) {
    value = __reduce_add_sync(0xffffu, value);
  } else {
    value += static_cast<int>(__ballot_sync(0xffff0000u, lane == 16) >> 16);
  }
  results[threadIdx.x] = value;
}

void test_divergence() {
  for_all_schedules([] {
    const DeviceArray<int> results(96);
    simt::launch("diverge", dim3(1), dim3(96), 0, nullptr, &diverge, results.data());
    bool equal = true;
    for (int i = 0; i < 96; ++i) {
      const auto moved = [](int thread) { return thread % 2 == 0 ? thread ^ 2 : -thread; };
      int want = moved(i) + 1;
      if (i % 32 < 16) {
        want = 0;
        for (int lane = 0; lane < 16; ++lane) want += moved(i / 32 * 32 + lane);
      }
      equal &= results[static_cast<std::size_t>(i)] == want;
    }
    CHECK(equal);
  });
}

// Lanes that have exited need not take part, though the mask names them.
__global__ void exit_lanes(int* results) {
  const int lane = static_cast<int>(threadIdx.x);
  if (lane % 4 == 3) return;
  __syncwarp();
  const unsigned here = __ballot_sync(kAll, 1);
  const int value = __shfl_sync(kAll, lane, 8);
  if (lane >= 16) return;
  results[lane] = __any_sync(kAll, lane == 1) * 100 + value + __popc(here);
}

void test_exits() {
  for_all_schedules([] {
    const DeviceArray<int> results(16, -1);
    simt::launch("exit_lanes", dim3(1), dim3(32), 0, nullptr, &exit_lanes, results.data());
    bool equal = true;
    for (int lane = 0; lane < 16; ++lane) {
      equal &= results[static_cast<std::size_t>(lane)] == (lane % 4 == 3 ? -1 : 100 + 8 + 24);
    }
    CHECK(equal);
  });
}

// A warp at the end of a block has fewer lanes.
__global__ void count_lanes(unsigned* results) { results[threadIdx.x] = __ballot_sync(kAll, 1); }

void test_partial_warp() {
  const DeviceArray<unsigned> results(40);
  simt::launch("count_lanes", dim3(1), dim3(40), 0, nullptr, &count_lanes, results.data());
  CHECK(results[0] == kAll && results[31] == kAll && results[32] == 0xff && results[39] == 0xff);
}

}  // namespace

int main() {
  test_shuffles<int>();
  test_shuffles<unsigned>();
  test_shuffles<float>();
  test_shuffles<double>();
  test_shuffles<long long>();
  test_struct_shuffle();
  test_votes();
  test_reductions();
  test_divergence();
  test_exits();
  test_partial_warp();
  return simt::test::finish();
}
