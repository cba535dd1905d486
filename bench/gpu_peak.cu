// Ceilings of the instructions that index kernels spend their time in: mma.sync, ex2, and loads
// that only read. Loaded by gpu_peak.py, which compiles it for the GPU at hand and times the
// launches.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/arch/launch.h"
#include "cuda/arch/math.h"
#include "cuda/arch/matrix.h"

namespace minference {
namespace {

// 16 warps on a multiprocessor, with 8 independent products each: more than cover the latency.
struct MmaTraits {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerSm = 2;
  static constexpr int kChains = 8;
};

/// Never true of the values here, but the compiler does not know.
__device__ inline bool is_impossible(float value) { return value == 123456789.0f; }

template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocksPerSm)
    mma_kernel(int iterations, float* sink) {
  // Bits of all kinds, exponents near 1: power, and with it the clock, depend on the data.
  uint32_t seed = threadIdx.x * 2654435761u + blockIdx.x * 40503u + 1;
  uint32_t a[4];
  uint32_t b[2];
  const auto draw = [&seed] {
    seed = seed * 1664525u + 1013904223u;
    return (seed & 0x807f807fu) | 0x3f003f00u;
  };
  for (uint32_t& word : a) word = draw();
  for (uint32_t& word : b) word = draw();
  float c[Traits::kChains][4] = {};
  for (int i = 0; i < iterations; ++i) {
#pragma unroll
    for (int chain = 0; chain < Traits::kChains; ++chain) {
      arch::mma_m16n8k16<arch::BFloat16>(c[chain], a, b);
    }
  }
  float sum = 0;
  for (const auto& chain : c) sum += chain[0] + chain[1] + chain[2] + chain[3];
  if (is_impossible(sum)) *sink = sum;
}

struct PowerTraits {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerSm = 4;
  static constexpr int kChains = 8;
};

template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocksPerSm)
    power_kernel(int iterations, float* sink) {
  float x[Traits::kChains];
  for (int i = 0; i < Traits::kChains; ++i) {
    x[i] = -0.001f * static_cast<float>(threadIdx.x + 256 * i);
  }
  for (int i = 0; i < iterations; ++i) {
#pragma unroll
    for (float& value : x) value = arch::exp2_approx(value);  // Stays between 0 and 2.
  }
  float sum = 0;
  for (const float value : x) sum += value;
  if (is_impossible(sum)) *sink = sum;
}

struct ReadTraits {
  static constexpr int kThreads = 256;
  static constexpr int kLoads = 8;  // 128 bytes in flight per thread.
};

struct alignas(16) Words {
  uint32_t words[4];
};

/// Each block reads kThreads * kLoads * 16 bytes.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads) read_kernel(const Words* source, float* sink) {
  const Words* first = source + int64_t{blockIdx.x} * Traits::kThreads * Traits::kLoads;
  Words loaded[Traits::kLoads];
#pragma unroll
  for (int i = 0; i < Traits::kLoads; ++i) loaded[i] = first[Traits::kThreads * i + threadIdx.x];
  uint32_t bits = 0;
  for (const Words& part : loaded) {
    bits ^= part.words[0] ^ part.words[1] ^ part.words[2] ^ part.words[3];
  }
  if (is_impossible(__uint_as_float(bits))) *sink = 0;
}

unsigned multiprocessors() {
  int device = 0;
  int count = 0;
  MINF_CUDA(cudaGetDevice(&device));
  MINF_CUDA(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  return static_cast<unsigned>(count);
}

template <typename Traits>
double launch_on_all(const char* name, void (*kernel)(int, float*), int iterations, float* sink,
                     void* stream) {
  const unsigned blocks = multiprocessors() * Traits::kBlocksPerSm;
  arch::launch(name, kernel, {dim3(blocks), dim3(Traits::kThreads)},
               static_cast<cudaStream_t>(stream), iterations, sink);
  return double{Traits::kThreads} * blocks * iterations * Traits::kChains;
}

}  // namespace
}  // namespace minference

// Each enqueues one launch and returns how much it does; negative if it could not. `sink`: 4 bytes
// of device memory.
extern "C" {

/// FLOP.
__attribute__((visibility("default"))) double gpu_peak_mma(int iterations, float* sink,
                                                           void* stream) try {
  using namespace minference;
  return launch_on_all<MmaTraits>("mma", &mma_kernel<MmaTraits>, iterations, sink, stream) / 32 *
         (2.0 * 16 * 8 * 16);
} catch (const minference::Error&) {
  return -1;
}

/// Exponentials.
__attribute__((visibility("default"))) double gpu_peak_power(int iterations, float* sink,
                                                             void* stream) try {
  using namespace minference;
  return launch_on_all<PowerTraits>("power", &power_kernel<PowerTraits>, iterations, sink, stream);
} catch (const minference::Error&) {
  return -1;
}

/// Bytes: `bytes` rounded down to whole blocks.
__attribute__((visibility("default"))) double gpu_peak_read(const void* source, long long bytes,
                                                            float* sink, void* stream) try {
  using namespace minference;
  constexpr long long kBlockBytes = ReadTraits::kThreads * ReadTraits::kLoads * 16LL;
  const auto blocks = static_cast<unsigned>(bytes / kBlockBytes);
  arch::launch("read", &read_kernel<ReadTraits>, {dim3(blocks), dim3(ReadTraits::kThreads)},
               static_cast<cudaStream_t>(stream), static_cast<const Words*>(source), sink);
  return static_cast<double>(blocks) * kBlockBytes;
} catch (const minference::Error&) {
  return -1;
}

}  // extern "C"
