// Ceilings of the instructions on which index kernels spend their time: mma.sync, ex2, and loads
// that only read. gpu_ceilings.py compiles this for the GPU at hand and times the launches.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/arch/launch.h"
#include "cuda/arch/math.h"
#include "cuda/arch/matrix.h"

namespace minference {
namespace {

constexpr int kThreads = 256;
constexpr int kChains = 8;  // Independent instructions per thread: more than the latency needs.
constexpr int kMmaBlocks = 2, kPowerBlocks = 4;  // Per multiprocessor.

/// Never true for the values here, but the compiler cannot know.
__device__ inline bool is_impossible(float value) { return value == 123456789.0f; }

__global__ void __launch_bounds__(kThreads, kMmaBlocks) mma_kernel(int iterations, float* sink) {
  // Random bits with exponents near 1, because power, and so the clock, depends on the data.
  uint32_t seed = threadIdx.x * 2654435761u + blockIdx.x * 40503u + 1;
  uint32_t a[4];
  uint32_t b[2];
  const auto draw = [&seed] {
    seed = seed * 1664525u + 1013904223u;
    return (seed & 0x807f807fu) | 0x3f003f00u;
  };
  for (uint32_t& word : a) word = draw();
  for (uint32_t& word : b) word = draw();
  float c[kChains][4] = {};
  for (int i = 0; i < iterations; ++i) {
#pragma unroll
    for (auto& chain : c) arch::mma_m16n8k16<arch::BFloat16>(chain, a, b);
  }
  float sum = 0;
  for (const auto& chain : c) sum += chain[0] + chain[1] + chain[2] + chain[3];
  if (is_impossible(sum)) *sink = sum;
}

__global__ void __launch_bounds__(kThreads, kPowerBlocks)
    power_kernel(int iterations, float* sink) {
  float x[kChains];
  for (int i = 0; i < kChains; ++i) x[i] = -0.001f * static_cast<float>(threadIdx.x + 256 * i);
  for (int i = 0; i < iterations; ++i) {
#pragma unroll
    for (float& value : x) value = arch::exp2_approx(value);  // Stays between 0 and 2.
  }
  float sum = 0;
  for (const float value : x) sum += value;
  if (is_impossible(sum)) *sink = sum;
}

struct alignas(16) Words {
  uint32_t words[4];
};

/// Each block reads kThreads * kChains * 16 bytes: 128 in flight per thread.
__global__ void __launch_bounds__(kThreads) read_kernel(const Words* source, float* sink) {
  const Words* first = source + int64_t{blockIdx.x} * kThreads * kChains;
  Words loaded[kChains];
#pragma unroll
  for (int i = 0; i < kChains; ++i) loaded[i] = first[kThreads * i + threadIdx.x];
  uint32_t bits = 0;
  for (const Words& part : loaded) {
    bits ^= part.words[0] ^ part.words[1] ^ part.words[2] ^ part.words[3];
  }
  if (is_impossible(__uint_as_float(bits))) *sink = 0;
}

double launch(int kind, int64_t size, const Words* source, float* sink, cudaStream_t stream) {
  int device = 0;
  int count = 0;
  MINF_CUDA(cudaGetDevice(&device));
  MINF_CUDA(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  if (kind == 2) {
    constexpr int64_t kBlockBytes = kThreads * kChains * 16;
    const int64_t blocks = size / kBlockBytes;
    arch::launch("read", &read_kernel, {dim3(static_cast<unsigned>(blocks)), dim3(kThreads)},
                 stream, source, sink);
    return static_cast<double>(blocks * kBlockBytes);
  }
  const int blocks = count * (kind == 0 ? kMmaBlocks : kPowerBlocks);
  arch::launch("ceiling", kind == 0 ? &mma_kernel : &power_kernel,
               {dim3(static_cast<unsigned>(blocks)), dim3(kThreads)}, stream,
               static_cast<int>(size), sink);
  const double done = double{kThreads} * kChains * blocks * static_cast<double>(size);
  return kind == 0 ? done / 32 * (2.0 * 16 * 8 * 16) : done;  // A product belongs to a warp.
}

}  // namespace
}  // namespace minference

/// Enqueues one launch of `kind` (0: mma.sync, 1: ex2, 2: reads `size` bytes, rounded down to whole
/// blocks; the others iterate `size` times). Returns its FLOP, exponentials or bytes; negative on
/// failure. `sink`: 4 bytes of device memory.
extern "C" __attribute__((visibility("default"))) double minf_bench_ceiling(
    int kind, long long size, const void* source, float* sink, void* stream) try {
  return minference::launch(kind, size, static_cast<const minference::Words*>(source), sink,
                            static_cast<cudaStream_t>(stream));
} catch (const minference::Error&) {
  return -1;
}
