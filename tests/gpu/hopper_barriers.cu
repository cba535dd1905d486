// Cases of mbarriers and related instructions: elect.sync, setmaxnreg.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/arch/async_copy.h"
#include "cuda/arch/barrier.h"
#include "cuda/arch/bulk_copy.h"
#include "cuda/arch/launch.h"
#include "cuda/arch/warp_specialization.h"
#include "hopper.h"

namespace minference::gpu_test {
namespace {

// ---- Phases: 64 writers hand rounds of words to 32 readers through a ring of two slots ----------
//
//     barrier    arrivals per phase    waited for by    then
//     full[s]    the 64 writers        readers          slot s is written
//     empty[s]   the 32 readers        writers          slot s may be overwritten

struct RingTraits {
  static constexpr int kWriters = 64;
  static constexpr int kReaders = 32;
  static constexpr int kSlots = 2;
  static constexpr int kRounds = 11;
  struct Storage {
    uint32_t words[kSlots][kWriters];
    arch::Mbarrier full[kSlots];
    arch::Mbarrier empty[kSlots];
  };
};

template <typename Traits>
__global__ void ring_kernel(const uint32_t* input, uint32_t* output) {
  auto& storage = arch::shared_storage<typename Traits::Storage>();
  const auto thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    for (int slot = 0; slot < Traits::kSlots; ++slot) {
      arch::mbarrier_init(storage.full[slot], Traits::kWriters);
      arch::mbarrier_init(storage.empty[slot], Traits::kReaders);
    }
    arch::fence_mbarrier_init();
  }
  __syncthreads();
  for (int round = 0; round < Traits::kRounds; ++round) {
    const int slot = round % Traits::kSlots;
    const auto parity = static_cast<uint32_t>(round / Traits::kSlots % 2);
    if (thread < Traits::kWriters) {
      arch::mbarrier_wait(storage.empty[slot], parity ^ 1);
      storage.words[slot][thread] = input[round * Traits::kWriters + thread];
      arch::mbarrier_arrive(storage.full[slot]);
    } else {
      const int reader = thread - Traits::kWriters;
      arch::mbarrier_wait(storage.full[slot], parity);
      const uint32_t sum = storage.words[slot][reader] + storage.words[slot][reader + 32];
      arch::mbarrier_arrive(storage.empty[slot]);
      output[round * Traits::kReaders + reader] = sum;
    }
  }
}

void expect_sums(std::span<const uint32_t> input, std::span<Expected> output) {
  for (std::size_t i = 0; i < output.size(); ++i) {
    const std::size_t first = i / 32 * RingTraits::kWriters + i % 32;
    output[i].word = input[first] + input[first + 32];
  }
}

// ---- What a wait sees, and bytes that land before they are announced ----------------------------

constexpr uint32_t kObservations[] = {
    0, 1,  // Phase 0 is current; the one before counts as complete.
    1, 0,  // After an arrival.
    0, 1,  // After another arrival: phase 2, whose parity is 0 again.
    0,     // All arrived, but 16 bytes are outstanding.
    1,     // The bytes have landed.
    1,     // A copy landed, then its bytes were announced.
    1,     // mbarrier_try_wait for a completed phase.
    7,     // The barrier's memory, reused after mbarrier_inval.
};

struct ObserveTraits {
  struct Storage {
    alignas(16) uint32_t words[8];
    arch::Mbarrier barrier;
  };
};

/// One thread.
template <typename Traits>
__global__ void observe_kernel(const uint32_t* input, uint32_t* output) {
  auto& storage = arch::shared_storage<typename Traits::Storage>();
  arch::Mbarrier& barrier = storage.barrier;
  arch::mbarrier_init(barrier, /*arrivals=*/1);
  arch::fence_mbarrier_init();
  for (int i = 0; i < 3; ++i) {
    if (i > 0) arch::mbarrier_arrive(barrier);
    output[2 * i] = arch::mbarrier_test_wait(barrier, 0) ? 1 : 0;
    output[2 * i + 1] = arch::mbarrier_test_wait(barrier, 1) ? 1 : 0;
  }
  arch::mbarrier_expect_tx(barrier, 16);
  arch::mbarrier_arrive(barrier);
  output[6] = arch::mbarrier_test_wait(barrier, 0) ? 1 : 0;
  arch::cp_async_bulk_load(storage.words, input, 16, barrier);
  arch::mbarrier_wait(barrier, 0);
  output[7] = arch::mbarrier_test_wait(barrier, 0) ? 1 : 0;
  arch::cp_async_bulk_load(storage.words + 4, input + 4, 16, barrier);
  arch::mbarrier_arrive_expect_tx(barrier, 16);
  arch::mbarrier_wait(barrier, 1);
  output[8] = storage.words[0] == input[0] && storage.words[7] == input[7] ? 1 : 0;
  output[9] = arch::mbarrier_try_wait(barrier, 1) ? 1 : 0;
  arch::mbarrier_inval(barrier);
  barrier.bits = 7;
  output[10] = static_cast<uint32_t>(barrier.bits);
}

void expect_observations(std::span<const uint32_t>, std::span<Expected> output) {
  for (std::size_t i = 0; i < output.size(); ++i) output[i].word = kObservations[i];
}

// ---- cp.async that arrives by itself ------------------------------------------------------------

struct ArriveTraits {
  static constexpr int kThreads = 64;
  struct Storage {
    alignas(16) uint32_t words[kThreads][4];
    arch::Mbarrier barrier;
  };
};

template <typename Traits>
__global__ void arrive_kernel(const uint32_t* input, uint32_t* output) {
  auto& storage = arch::shared_storage<typename Traits::Storage>();
  const auto thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    arch::mbarrier_init(storage.barrier, Traits::kThreads);
    arch::fence_mbarrier_init();
  }
  __syncthreads();
  arch::cp_async_16(storage.words[thread], input + 4 * thread, thread % 17);
  arch::cp_async_mbarrier_arrive_noinc(storage.barrier);
  arch::mbarrier_wait(storage.barrier, /*parity=*/0);
  const int neighbour = (thread + 21) % Traits::kThreads;
  for (int i = 0; i < 4; ++i) output[4 * neighbour + i] = storage.words[neighbour][i];
}

void expect_arrivals(std::span<const uint32_t> input, std::span<Expected> output) {
  for (std::size_t i = 0; i < output.size(); ++i) {
    const auto thread = static_cast<int>(i / 4);
    const int bytes = std::clamp(thread % 17 - 4 * static_cast<int>(i % 4), 0, 4);
    output[i].word = bytes == 4 ? input[i] : input[i] & ((1U << (8 * bytes)) - 1);
  }
}

// ---- elect.sync: any lane may be elected, but one, and the same one again -----------------------

template <int kUnused = 0>
__global__ void elect_kernel(uint32_t* output) {
  const unsigned first = __ballot_sync(0xffffffff, arch::elect_one() ? 1 : 0);
  const unsigned second = __ballot_sync(0xffffffff, arch::elect_one() ? 1 : 0);
  output[2 * threadIdx.x] = static_cast<uint32_t>(__popc(first));
  output[2 * threadIdx.x + 1] = first == second ? 1 : 0;
}

void expect_ones(std::span<const uint32_t>, std::span<Expected> output) {
  for (Expected& expected : output) expected.word = 1;
}

// ---- setmaxnreg: values in registers survive it ------------------------------------------------

constexpr int kRegisterWords = 16;

/// Three warpgroups with at most 168 registers each at launch: 24 + 240 + 240 fit together.
template <int kUnused = 0>
__global__ void __launch_bounds__(384, 1) register_kernel(const uint32_t* input, uint32_t* output) {
  const auto first = static_cast<int>(threadIdx.x) * kRegisterWords;
  uint32_t words[kRegisterWords];
  for (int i = 0; i < kRegisterWords; ++i) words[i] = input[first + i];
  if (threadIdx.x < 128) {
    arch::setmaxnreg_dec<24>();
    for (int i = 0; i < kRegisterWords; ++i) output[first + i] = words[i] ^ 1;
  } else {
    arch::setmaxnreg_inc<240>();
    for (int i = 0; i < kRegisterWords; ++i) output[first + i] = words[i] ^ 2;
  }
}

void expect_registers(std::span<const uint32_t> input, std::span<Expected> output) {
  for (std::size_t i = 0; i < output.size(); ++i) {
    output[i].word = input[i] ^ (i < 128 * kRegisterWords ? 1 : 2);
  }
}

}  // namespace

CaseList hopper_barrier_cases() {
  return {
      {.name = "mbarrier_init, _arrive, _wait",
       .min_arch = 90,
       .input_words = RingTraits::kRounds * RingTraits::kWriters,
       .output_words = RingTraits::kRounds * RingTraits::kReaders,
       .fill = &fill_random,
       .launch =
           [](const uint32_t* input, uint32_t* output, cudaStream_t stream) {
             arch::launch("ring", &ring_kernel<RingTraits>,
                          {dim3(1), dim3(96), sizeof(RingTraits::Storage)}, stream, input, output);
           },
       .expect = &expect_sums,
       .max_arch = 90},
      {.name = "mbarrier_test_wait, _try_wait, _expect_tx, _inval",
       .min_arch = 90,
       .input_words = 8,
       .output_words = std::size(kObservations),
       .fill = &fill_random,
       .launch =
           [](const uint32_t* input, uint32_t* output, cudaStream_t stream) {
             arch::launch("observe", &observe_kernel<ObserveTraits>,
                          {dim3(1), dim3(1), sizeof(ObserveTraits::Storage)}, stream, input,
                          output);
           },
       .expect = &expect_observations,
       .max_arch = 90},
      {.name = "cp_async_mbarrier_arrive_noinc",
       .min_arch = 90,
       .input_words = 4 * ArriveTraits::kThreads,
       .output_words = 4 * ArriveTraits::kThreads,
       .fill = &fill_random,
       .launch =
           [](const uint32_t* input, uint32_t* output, cudaStream_t stream) {
             arch::launch("arrive", &arrive_kernel<ArriveTraits>,
                          {dim3(1), dim3(ArriveTraits::kThreads), sizeof(ArriveTraits::Storage)},
                          stream, input, output);
           },
       .expect = &expect_arrivals,
       .max_arch = 90},
      {.name = "elect_one",
       .min_arch = 90,
       .input_words = 1,
       .output_words = 2 * 96,
       .fill = &fill_random,
       .launch =
           [](const uint32_t*, uint32_t* output, cudaStream_t stream) {
             arch::launch("elect", &elect_kernel<>, {dim3(1), dim3(96)}, stream, output);
           },
       .expect = &expect_ones,
       .max_arch = 90},
      {.name = "setmaxnreg_dec, setmaxnreg_inc",
       .min_arch = 90,
       .input_words = 384 * kRegisterWords,
       .output_words = 384 * kRegisterWords,
       .fill = &fill_random,
       .launch =
           [](const uint32_t* input, uint32_t* output, cudaStream_t stream) {
             arch::launch("register", &register_kernel<>, {dim3(1), dim3(384)}, stream, input,
                          output);
           },
       .expect = &expect_registers,
       .max_arch = 90},
  };
}

}  // namespace minference::gpu_test
