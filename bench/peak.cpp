// Arithmetic peak of this CPU: what a loop of nothing but fused multiply-adds on registers reaches.
//
// Built by peak.py as a shared library, so that a benchmark measures it in its own process, between
// its contenders, at the clocks they see. Each kernel carries its own target attribute and is
// entered only where the processor (and the operating system) has the instruction: no -march flag.
//
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

// Keeps one accumulator in a register and its update in the loop, at no instruction.
#define MINF_PIN_REGISTER(x) asm volatile("" : "+v"(x))

// A kernel runs num_iterations times kNumAccumulators independent multiply-adds of one vector each.
struct Kernel {
  void (*run)(int64_t num_iterations);
  double flops_per_iteration;
  bool (*available)();
};

#if defined(__x86_64__)

// Latency times throughput is 8 to 12 vectors in flight (4 to 6 cycles, 2 a cycle). 20 of 32 and 12
// of 16 registers cover it and leave room for the operands.
constexpr int kNumZmm = 20;
constexpr int kNumYmm = 12;

__attribute__((target("avx512f"))) void fma_avx512(int64_t num_iterations) {
  __m512 acc[kNumZmm];
  __m512 a = _mm512_set1_ps(0.999f);
  __m512 b = _mm512_set1_ps(0.001f);
  MINF_PIN_REGISTER(a);
  MINF_PIN_REGISTER(b);
#pragma GCC unroll 32
  for (int i = 0; i < kNumZmm; ++i) acc[i] = _mm512_set1_ps(static_cast<float>(i));
  for (int64_t n = 0; n < num_iterations; ++n) {
#pragma GCC unroll 32
    for (int i = 0; i < kNumZmm; ++i) {
      acc[i] = _mm512_fmadd_ps(acc[i], a, b);  // Tends to 1: neither overflow nor denormals.
      MINF_PIN_REGISTER(acc[i]);
    }
  }
}

__attribute__((target("avx512f,avx512bf16"))) void dot_bf16_avx512(int64_t num_iterations) {
  __m512 acc[kNumZmm];
  __m512 a = _mm512_set1_ps(0.5f);  // As bf16: pairs of (0, 0.5).
  __m512 b = _mm512_set1_ps(0.25f);
  MINF_PIN_REGISTER(a);
  MINF_PIN_REGISTER(b);
#pragma GCC unroll 32
  for (int i = 0; i < kNumZmm; ++i) acc[i] = _mm512_set1_ps(static_cast<float>(i));
  for (int64_t n = 0; n < num_iterations; ++n) {
#pragma GCC unroll 32
    for (int i = 0; i < kNumZmm; ++i) {
      acc[i] = _mm512_dpbf16_ps(acc[i], (__m512bh)a, (__m512bh)b);  // Stops growing at 2^21.
      MINF_PIN_REGISTER(acc[i]);
    }
  }
}

__attribute__((target("avx2,fma"))) void fma_avx2(int64_t num_iterations) {
  __m256 acc[kNumYmm];
  __m256 a = _mm256_set1_ps(0.999f);
  __m256 b = _mm256_set1_ps(0.001f);
  MINF_PIN_REGISTER(a);
  MINF_PIN_REGISTER(b);
#pragma GCC unroll 32
  for (int i = 0; i < kNumYmm; ++i) acc[i] = _mm256_set1_ps(static_cast<float>(i));
  for (int64_t n = 0; n < num_iterations; ++n) {
#pragma GCC unroll 32
    for (int i = 0; i < kNumYmm; ++i) {
      acc[i] = _mm256_fmadd_ps(acc[i], a, b);
      MINF_PIN_REGISTER(acc[i]);
    }
  }
}

// One multiply-add is 2 FLOPs a lane; vdpbf16ps does two per fp32 lane.
constexpr Kernel kKernels[] = {
    {fma_avx512, kNumZmm * 16 * 2.0, [] { return __builtin_cpu_supports("avx512f") != 0; }},
    {dot_bf16_avx512, kNumZmm * 16 * 4.0,
     [] {
       return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bf16") != 0;
     }},
    {fma_avx2, kNumYmm * 8 * 2.0,
     [] { return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0; }},
};
constexpr int kNumKernels = 3;

#else

constexpr Kernel kKernels[] = {{nullptr, 0.0, [] { return false; }}};
constexpr int kNumKernels = 0;

#endif

double seconds_of(const Kernel& kernel, int64_t num_iterations) {
  const auto start = Clock::now();
  kernel.run(num_iterations);
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

/// Returns the FLOP/s that num_threads threads reach together over about `seconds`, or 0 where this
/// machine lacks the instruction. `kind` indexes KINDS in peak.py. All threads start together; the
/// slowest one ends the measurement.
extern "C" double minf_bench_peak_flops(int kind, int num_threads, double seconds) {
  if (kind < 0 || kind >= kNumKernels || num_threads < 1 || !kKernels[kind].available()) return 0.0;
  const Kernel& kernel = kKernels[kind];

  // The number of iterations comes from this thread alone; it also brings the clock up.
  int64_t num_iterations = 1000;
  double calibration = seconds_of(kernel, num_iterations);
  while (calibration < 0.1 * seconds) {
    num_iterations *= 2;
    calibration = seconds_of(kernel, num_iterations);
  }
  num_iterations = static_cast<int64_t>(num_iterations * seconds / calibration) + 1;

  std::atomic<int> num_ready{0};
  std::atomic<bool> go{false};
  std::vector<std::thread> threads;
  for (int i = 1; i < num_threads; ++i) {
    threads.emplace_back([&] {
      num_ready.fetch_add(1);
      while (!go.load()) {
      }
      kernel.run(num_iterations);
    });
  }
  while (num_ready.load() < num_threads - 1) {
  }
  const auto start = Clock::now();
  go.store(true);
  kernel.run(num_iterations);
  for (std::thread& thread : threads) thread.join();
  const double elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  return kernel.flops_per_iteration * static_cast<double>(num_iterations) * num_threads / elapsed;
}
