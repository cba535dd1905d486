// Arithmetic peak of this CPU: the rate of a loop of nothing but fused multiply-adds on registers.
//
// Built by peak.py as a shared library, so that a benchmark measures it in its own process, between
// its contenders, at the clocks that they see. Each kernel has its own target attribute and only
// runs if the processor (and the operating system) has the instruction: no -march flag.
//
// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

// A kernel runs num_iterations times this many independent multiply-adds of one vector each.
struct Kernel {
  void (*run)(int64_t num_iterations);
  double flops_per_iteration;
  bool is_available;
};

#if defined(__x86_64__)

// The asm keeps an accumulator in a register and its update in the loop, without an instruction.
// Values tend to 1 (dots of bf16 stop growing), so there is no overflow and there are no denormals.
#define MINF_BENCH_KERNEL(name, isa, Vector, kCount, set1, update) \
  __attribute__((target(isa))) void name(int64_t num_iterations) { \
    Vector acc[kCount];                                            \
    Vector a = set1(0.999f);                                       \
    Vector b = set1(0.001f);                                       \
    asm volatile("" : "+v"(a), "+v"(b));                           \
    _Pragma("GCC unroll 32") for (int i = 0; i < kCount; ++i) {    \
      acc[i] = set1(static_cast<float>(i));                        \
    }                                                              \
    for (int64_t n = 0; n < num_iterations; ++n) {                 \
      _Pragma("GCC unroll 32") for (int i = 0; i < kCount; ++i) {  \
        acc[i] = update;                                           \
        asm volatile("" : "+v"(acc[i]));                           \
      }                                                            \
    }                                                              \
  }

// Latency times throughput is 8 to 12 vectors in flight (4 to 6 cycles, 2 per cycle). 20 of 32 and
// 12 of 16 registers cover it and leave registers for the operands.
MINF_BENCH_KERNEL(fma_avx512, "avx512f", __m512, 20, _mm512_set1_ps, _mm512_fmadd_ps(acc[i], a, b))
MINF_BENCH_KERNEL(dot_bf16_avx512, "avx512f,avx512bf16", __m512, 20, _mm512_set1_ps,
                  _mm512_dpbf16_ps(acc[i], (__m512bh)a, (__m512bh)b))
MINF_BENCH_KERNEL(fma_avx2, "avx2,fma", __m256, 12, _mm256_set1_ps, _mm256_fmadd_ps(acc[i], a, b))

// One multiply-add is 2 FLOPs per lane; vdpbf16ps does two per fp32 lane.
const Kernel kKernels[] = {
    {fma_avx512, 20 * 16 * 2.0, __builtin_cpu_supports("avx512f") != 0},
    {dot_bf16_avx512, 20 * 16 * 4.0, __builtin_cpu_supports("avx512bf16") != 0},
    {fma_avx2, 12 * 8 * 2.0,
     __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0},
};
#else
const Kernel kKernels[3] = {};
#endif

double seconds_of(const Kernel& kernel, int64_t num_iterations) {
  const auto start = std::chrono::steady_clock::now();
  kernel.run(num_iterations);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

/// Returns the FLOP/s that num_threads threads reach together over about `seconds`, or 0 if this
/// machine lacks the instruction. `kind` indexes KINDS in peak.py. All threads start together; the
/// slowest one ends the measurement.
extern "C" double minf_bench_peak_flops(int kind, int num_threads, double seconds) {
  const Kernel& kernel = kKernels[kind];
  if (!kernel.is_available) return 0.0;

  // This thread alone determines the number of iterations, which also brings up the clock.
  int64_t num_iterations = 1000;
  double calibration = seconds_of(kernel, num_iterations);
  while (calibration < 0.1 * seconds) {
    num_iterations *= 2;
    calibration = seconds_of(kernel, num_iterations);
  }
  num_iterations = static_cast<int64_t>(num_iterations * seconds / calibration) + 1;

  std::atomic<int> num_waiting{num_threads};
  const auto run = [&] {
    num_waiting.fetch_sub(1);
    while (num_waiting.load() > 0) {
    }
    const auto start = std::chrono::steady_clock::now();
    kernel.run(num_iterations);
    return start;
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < num_threads; ++i) threads.emplace_back(run);
  const auto start = run();
  for (std::thread& thread : threads) thread.join();
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  return kernel.flops_per_iteration * static_cast<double>(num_iterations) * num_threads /
         elapsed.count();
}
