// Cases of instructions that threads execute together: shuffles, votes, named barriers, atomics;
// and bit counts.
// SPDX-License-Identifier: Apache-2.0
#include "case.h"
#include "cuda/arch/barrier.h"
#include "cuda/arch/launch.h"
#include "cuda/arch/shared.h"

namespace minference::gpu_test {
namespace {

struct Traits32 {};  // Kernels here have no variants.

// ---- Shuffles: 14 results per lane, for whole warps, then for half warps that diverged ----------

constexpr int kWarps = 4;
constexpr int kShuffles = 14;

template <typename Traits>
__global__ void shuffle_kernel(const uint32_t* input, uint32_t* output) {
  const auto thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const uint32_t x = input[thread];
  uint32_t* out = output + kShuffles * thread;
  out[0] = __shfl_sync(0xffffffffU, x, (lane * 7 + 3) % 32);
  out[1] = __shfl_sync(0xffffffffU, x, lane + 5, 8);
  out[2] = __shfl_xor_sync(0xffffffffU, x, 1);
  out[3] = __shfl_xor_sync(0xffffffffU, x, 16);
  out[4] = __shfl_xor_sync(0xffffffffU, x, 12, 8);  // Reaches beyond the segment of 8.
  out[5] = __shfl_up_sync(0xffffffffU, x, 3);
  out[6] = __shfl_up_sync(0xffffffffU, x, 5, 16);
  out[7] = __shfl_down_sync(0xffffffffU, x, 9);
  out[8] = __shfl_down_sync(0xffffffffU, x, 2, 4);
  if (lane < 16) {
    out[9] = __shfl_xor_sync(0x0000ffffU, x, 8);
    out[10] = __shfl_sync(0x0000ffffU, x, 15 - lane);
  } else {
    out[9] = __shfl_xor_sync(0xffff0000U, x, 4);
    out[10] = __shfl_sync(0xffff0000U, x, 16 + (lane + 1) % 16);
  }
  __syncwarp();
  out[11] = __float_as_uint(__shfl_xor_sync(0xffffffffU, __uint_as_float(x & 0x7effffffU), 2));
  const uint64_t wide = __shfl_up_sync(0xffffffffU, uint64_t{x} << 32 | ~x, 4);
  out[12] = static_cast<uint32_t>(wide);
  out[13] = static_cast<uint32_t>(wide >> 32);
}

/// CUDA C++ Programming Guide, "Warp Shuffle Functions": a lane whose source is outside the segment
/// reads itself.
void expect_shuffles(std::span<const uint32_t> input, std::span<Expected> output) {
  for (int thread = 0; thread < 32 * kWarps; ++thread) {
    const int lane = thread % 32;
    const auto from = [&](int source) {
      return input[static_cast<std::size_t>(thread - lane + source)];
    };
    const auto inside = [&](int source, int width) {
      return from(source >= 0 && source / width == lane / width ? source : lane);
    };
    const bool low = lane < 16;
    const uint32_t want[kShuffles] = {
        from((lane * 7 + 3) % 32), from(lane / 8 * 8 + (lane + 5) % 8), from(lane ^ 1),
        from(lane ^ 16),
        // A lane may read a lane of an earlier segment, but not one of a later segment.
        (lane ^ 12) / 8 > lane / 8 ? from(lane) : from(lane ^ 12), inside(lane - 3, 32),
        inside(lane - 5, 16), inside(lane + 9, 32), inside(lane + 2, 4),
        from(low ? lane ^ 8 : lane ^ 4), from(low ? 15 - lane : 16 + (lane + 1) % 16),
        from(lane ^ 2) & 0x7effffffU, ~inside(lane - 4, 32), inside(lane - 4, 32)};
    for (int i = 0; i < kShuffles; ++i) {
      output[static_cast<std::size_t>(kShuffles * thread + i)].word = want[i];
    }
  }
}

// ---- Votes, and counting of bits ----------------------------------------------------------------

constexpr int kVotes = 9;

template <typename Traits>
__global__ void vote_kernel(const uint32_t* input, uint32_t* output) {
  const auto thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const uint32_t x = input[thread];
  uint32_t* out = output + kVotes * thread;
  out[0] = __ballot_sync(0xffffffffU, x & 1);
  out[1] = __any_sync(0xffffffffU, (x & 31) == 0) != 0;
  out[2] = __all_sync(0xffffffffU, x > 0x10000000U) != 0;
  if (lane % 2 == 0) {
    out[3] = __ballot_sync(0x55555555U, x & 2);
  } else {
    out[3] = __any_sync(0xaaaaaaaaU, (x & 15) == 0) != 0;
  }
  __syncwarp();
  out[4] = static_cast<uint32_t>(__popc(x));
  out[5] = static_cast<uint32_t>(__clz(static_cast<int>(x >> (x % 33 == 32 ? 31 : x % 33))));
  out[6] = static_cast<uint32_t>(__ffs(static_cast<int>(x << (x % 32))));
  out[7] = static_cast<uint32_t>(__clz(0));
  out[8] = static_cast<uint32_t>(__ffs(0));
}

void expect_votes(std::span<const uint32_t> input, std::span<Expected> output) {
  for (std::size_t thread = 0; thread < input.size(); ++thread) {
    const std::span<const uint32_t> warp = input.subspan(thread / 32 * 32, 32);
    const auto ballot = [&](auto holds) {
      uint32_t lanes = 0;
      for (std::size_t lane = 0; lane < 32; ++lane) {
        lanes |= holds(warp[lane]) ? 1U << lane : 0;
      }
      return lanes;
    };
    const uint32_t x = input[thread];
    const uint32_t shifted = x >> (x % 33 == 32 ? 31 : x % 33);
    const uint32_t raised = x << (x % 32);
    const bool even = thread % 2 == 0;
    const uint32_t second = ballot([](uint32_t value) { return (value & 2) != 0; });
    const uint32_t multiple = ballot([](uint32_t value) { return (value & 15) == 0; });
    const uint32_t want[kVotes] = {
        ballot([](uint32_t value) { return (value & 1) != 0; }),
        ballot([](uint32_t value) { return (value & 31) == 0; }) != 0,
        ballot([](uint32_t value) { return value > 0x10000000U; }) == ~0U,
        even ? second & 0x55555555U : (multiple & 0xaaaaaaaaU) != 0,
        static_cast<uint32_t>(std::popcount(x)),
        static_cast<uint32_t>(std::countl_zero(shifted)),
        raised == 0 ? 0 : static_cast<uint32_t>(std::countr_zero(raised)) + 1,
        32,
        0};
    for (std::size_t i = 0; i < kVotes; ++i) output[kVotes * thread + i].word = want[i];
  }
}

// ---- Named barriers: two producer warps fill a buffer that two consumer warps read --------------
//
//     barrier     arrive            wait              then
//     kFull + s   64 producers      64 consumers      buffer s may be read
//     kEmpty + s  64 consumers      64 producers      buffer s may be overwritten
//     kPair       -                 64 producers      both producer warps have the last round

constexpr int kRounds = 10;
constexpr int kRole = 64;  // Threads per role.

struct BarrierTraits {
  static constexpr int kStages = 2;
  enum Barrier { kFull = 1, kEmpty = kFull + kStages, kPair = kEmpty + kStages };
  struct Storage {
    uint32_t buffer[kStages][kRole];
    uint32_t last[kRole];
  };
};

template <typename Traits>
__global__ void barrier_kernel(const uint32_t* input, uint32_t* output) {
  auto& storage = arch::shared_storage<typename Traits::Storage>();
  const int thread = static_cast<int>(threadIdx.x) % kRole;
  if (threadIdx.x < kRole) {
    uint32_t value = 0;
    for (int round = 0; round < kRounds; ++round) {
      const int stage = round % Traits::kStages;
      if (round >= Traits::kStages) {
        arch::named_barrier_sync(Traits::kEmpty + stage, 2 * kRole);
      }
      value = input[kRole * round + thread];
      storage.buffer[stage][thread] = value;
      arch::named_barrier_arrive(Traits::kFull + stage, 2 * kRole);
    }
    storage.last[thread] = value;
    arch::named_barrier_sync(Traits::kPair, kRole);
    output[kRole * kRounds + thread] = storage.last[kRole - 1 - thread];
  } else {
    for (int round = 0; round < kRounds; ++round) {
      const int stage = round % Traits::kStages;
      arch::named_barrier_sync(Traits::kFull + stage, 2 * kRole);
      output[kRole * round + thread] = storage.buffer[stage][kRole - 1 - thread];
      if (round + Traits::kStages < kRounds) {
        arch::named_barrier_arrive(Traits::kEmpty + stage, 2 * kRole);
      }
    }
  }
}

void expect_reversed(std::span<const uint32_t> input, std::span<Expected> output) {
  for (std::size_t i = 0; i < output.size(); ++i) {
    const std::size_t round = std::min<std::size_t>(i / kRole, kRounds - 1);
    output[i].word = input[kRole * round + kRole - 1 - i % kRole];
  }
}

// ---- Votes at a named barrier, two warps each: of the first round by bit 0, and so on
// ------------

constexpr int kVoteRounds = 8;

template <typename Traits>
__global__ void barrier_vote_kernel(const uint32_t* input, uint32_t* output) {
  const auto thread = static_cast<int>(threadIdx.x);
  uint32_t votes = 0;
  for (int round = 0; round < kVoteRounds; ++round) {
    // Few threads raise it, and in some rounds none.
    const bool raises = (input[thread] >> (4 * round) & 15) == 0 && thread % 16 == round;
    if (arch::named_barrier_or(1 + thread / kRole, kRole, raises)) votes |= 1u << round;
  }
  output[thread] = votes;
}

void expect_barrier_votes(std::span<const uint32_t> input, std::span<Expected> output) {
  for (std::size_t first = 0; first < output.size(); first += kRole) {
    uint32_t votes = 0;
    for (std::size_t thread = first; thread < first + kRole; ++thread) {
      for (std::size_t round = 0; round < kVoteRounds; ++round) {
        if ((input[thread] >> (4 * round) & 15) == 0 && thread % 16 == round) votes |= 1u << round;
      }
    }
    for (std::size_t thread = first; thread < first + kRole; ++thread) output[thread].word = votes;
  }
}

// ---- Atomics: results that do not depend on the order -------------------------------------------

constexpr int kAtomicThreads = 256;
constexpr int kAtomicBlocks = 8;
constexpr int kResults = 8;  // Sum, max, min, or, 64-bit sum (2), signed max, swapped sum.

struct AtomicTraits {
  struct Storage {
    unsigned long long wide;
    uint32_t results[kResults];
    uint32_t tickets[kAtomicThreads];
  };
};

/// Adds by compare-and-swap.
__device__ inline void swap_in(uint32_t* sum, uint32_t value) {
  uint32_t seen = *static_cast<volatile uint32_t*>(sum);
  for (uint32_t before = ~seen; before != seen;) {
    before = seen;
    seen = atomicCAS(sum, before, before + value);
  }
}

/// Per block: results in shared memory, then tickets, which must be a permutation. Finally the sum
/// and the 64-bit sum of all blocks, in global memory; the first block's input starts there.
template <typename Traits>
__global__ void atomic_kernel(const uint32_t* input, uint32_t* output) {
  auto& storage = arch::shared_storage<typename Traits::Storage>();
  const auto thread = static_cast<int>(threadIdx.x);
  const auto block = static_cast<int>(blockIdx.x);
  if (thread < kResults) storage.results[thread] = thread == 2 ? ~0U : 0;
  if (thread == kResults) storage.wide = 0;
  storage.tickets[thread] = 0;
  __syncthreads();
  const uint32_t x = input[kAtomicThreads * block + thread];
  const uint32_t ticket = atomicAdd(&storage.results[0], 1U);
  atomicMax(&storage.results[1], x);
  atomicMin(&storage.results[2], x);
  atomicOr(&storage.results[3], 1U << (x % 32));
  atomicAdd(&storage.wide, static_cast<unsigned long long>(x) << 8);
  atomicMax(reinterpret_cast<int32_t*>(&storage.results[6]), static_cast<int32_t>(x));
  swap_in(&storage.results[7], x);
  atomicAdd(&storage.tickets[ticket % kAtomicThreads], 1U);
  __syncthreads();
  if (thread == 0) {
    storage.results[4] = static_cast<uint32_t>(storage.wide);
    storage.results[5] = static_cast<uint32_t>(storage.wide >> 32);
  }
  __syncthreads();
  uint32_t* out = output + (kResults + kAtomicThreads) * block;
  if (thread < kResults) out[thread] = storage.results[thread];
  out[kResults + thread] = storage.tickets[thread];
}

void expect_atomics(std::span<const uint32_t> input, std::span<Expected> output) {
  for (std::size_t block = 0; block < kAtomicBlocks; ++block) {
    const auto values = input.subspan(kAtomicThreads * block, kAtomicThreads);
    uint32_t result[kResults] = {kAtomicThreads, 0, ~0U, 0, 0, 0, 0, 0};
    uint64_t wide = 0;
    for (const uint32_t x : values) {
      result[1] = std::max(result[1], x);
      result[2] = std::min(result[2], x);
      result[3] |= 1U << (x % 32);
      wide += uint64_t{x} << 8;
      result[6] =
          static_cast<uint32_t>(std::max(static_cast<int32_t>(result[6]), static_cast<int32_t>(x)));
      result[7] += x;
    }
    result[4] = static_cast<uint32_t>(wide);
    result[5] = static_cast<uint32_t>(wide >> 32);
    const auto out = output.subspan((kResults + kAtomicThreads) * block);
    for (std::size_t i = 0; i < kResults; ++i) out[i].word = result[i];
    for (std::size_t i = 0; i < kAtomicThreads; ++i) out[kResults + i].word = 1;
  }
}

// ---- Atomics in global memory, all blocks on the same words -------------------------------------

template <typename Traits>
__global__ void clear_kernel(uint32_t* output) {
  if (threadIdx.x < 6) output[threadIdx.x] = threadIdx.x == 2 ? ~0U : 0;
}

template <typename Traits>
__global__ void global_atomic_kernel(const uint32_t* input, uint32_t* output) {
  const uint32_t x = input[kAtomicThreads * static_cast<int>(blockIdx.x) + threadIdx.x];
  atomicAdd(&output[0], x);
  atomicMax(&output[1], x);
  atomicMin(&output[2], x);
  atomicOr(&output[3], x & 0x11111111U);
  atomicAdd(reinterpret_cast<unsigned long long*>(&output[4]), static_cast<unsigned long long>(x));
}

void expect_global_atomics(std::span<const uint32_t> input, std::span<Expected> output) {
  uint64_t sum = 0;
  uint32_t highest = 0;
  uint32_t lowest = ~0U;
  uint32_t bits = 0;
  for (const uint32_t x : input) {
    sum += x;
    highest = std::max(highest, x);
    lowest = std::min(lowest, x);
    bits |= x & 0x11111111U;
  }
  const uint32_t want[] = {
      static_cast<uint32_t>(sum),      highest, lowest, bits, static_cast<uint32_t>(sum),
      static_cast<uint32_t>(sum >> 32)};
  for (std::size_t i = 0; i < output.size(); ++i) output[i].word = want[i];
}

/// A case of one block, with or without shared memory.
template <auto kKernel>
void launch_block(const uint32_t* input, uint32_t* output, cudaStream_t stream) {
  arch::launch("block", kKernel, {dim3(1), dim3(32 * kWarps), sizeof(BarrierTraits::Storage)},
               stream, input, output);
}

}  // namespace

CaseList thread_cases() {
  return {
      {.name = "shuffles",
       .min_arch = 80,
       .input_words = 32 * kWarps,
       .output_words = 32 * kWarps * kShuffles,
       .fill = &fill_random,
       .launch = &launch_block<&shuffle_kernel<Traits32>>,
       .expect = &expect_shuffles},
      {.name = "votes, counts of bits",
       .min_arch = 80,
       .input_words = 32 * kWarps,
       .output_words = 32 * kWarps * kVotes,
       .fill = &fill_random,
       .launch = &launch_block<&vote_kernel<Traits32>>,
       .expect = &expect_votes},
      {.name = "named_barrier_sync, named_barrier_arrive",
       .min_arch = 80,
       .input_words = kRounds * kRole,
       .output_words = (kRounds + 1) * kRole,
       .fill = &fill_random,
       .launch = &launch_block<&barrier_kernel<BarrierTraits>>,
       .expect = &expect_reversed},
      {.name = "named_barrier_or",
       .min_arch = 80,
       .input_words = 2 * kRole,
       .output_words = 2 * kRole,
       .fill = &fill_random,
       .launch =
           [](const uint32_t* input, uint32_t* output, cudaStream_t stream) {
             arch::launch("barrier_vote", &barrier_vote_kernel<Traits32>,
                          {dim3(1), dim3(2 * kRole)}, stream, input, output);
           },
       .expect = &expect_barrier_votes},
      {.name = "atomics, shared",
       .min_arch = 80,
       .input_words = kAtomicBlocks * kAtomicThreads,
       .output_words = kAtomicBlocks * (kResults + kAtomicThreads),
       .fill = &fill_random,
       .launch =
           [](const uint32_t* input, uint32_t* output, cudaStream_t stream) {
             arch::launch(
                 "atomic", &atomic_kernel<AtomicTraits>,
                 {dim3(kAtomicBlocks), dim3(kAtomicThreads), sizeof(AtomicTraits::Storage)}, stream,
                 input, output);
           },
       .expect = &expect_atomics},
      {.name = "atomics, global",
       .min_arch = 80,
       .input_words = kAtomicBlocks * kAtomicThreads,
       .output_words = 6,
       .fill = &fill_random,
       .launch =
           [](const uint32_t* input, uint32_t* output, cudaStream_t stream) {
             arch::launch("clear", &clear_kernel<Traits32>, {dim3(1), dim3(32)}, stream, output);
             arch::launch("global_atomic", &global_atomic_kernel<Traits32>,
                          {dim3(kAtomicBlocks), dim3(kAtomicThreads)}, stream, input, output);
           },
       .expect = &expect_global_atomics},
  };
}

}  // namespace minference::gpu_test
