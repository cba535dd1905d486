// Inputs, launch and results of the kernel of hopper_pipeline.h.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/arch/launch.h"
#include "hopper.h"
#include "hopper_pipeline.h"

namespace minference::gpu_test {

inline constexpr PipelineShape kPipelineShape = {.m = 200, .n = 264, .k = 344};
inline constexpr int kPipelineBlocks = 2;
inline constexpr int64_t kPipelineWordsA = int64_t{kPipelineShape.m} * kPipelineShape.k / 2;
inline constexpr int64_t kPipelineWordsB = int64_t{kPipelineShape.n} * kPipelineShape.k / 2;
inline constexpr int64_t kPipelineInputWords = kPipelineWordsA + kPipelineWordsB;
inline constexpr int64_t kPipelineOutputWords = int64_t{kPipelineShape.m} * kPipelineShape.n / 2;

template <typename Traits>
inline constexpr Format kPipelineFormat =
    std::is_same_v<typename Traits::Element, arch::BFloat16> ? Format::kBFloat16 : Format::kFloat16;

template <typename Traits>
void fill_pipeline(std::span<uint32_t> input) {
  Random random;
  const auto draw = [&] {
    return encode(static_cast<double>(random.below(3)) - 1, kPipelineFormat<Traits>);
  };
  for (uint32_t& word : input) {
    const uint32_t low = draw();
    word = draw() << 16 | low;
  }
}

/// A row-major matrix in boxes of 64 rows and 64 columns.
inline CUtensorMap matrix_map(const void* base, int32_t rows, int32_t columns) {
  return arch::encode_tensor_map<2>(
      {.base = base,
       .sizes = {static_cast<uint64_t>(columns), static_cast<uint64_t>(rows)},
       .stride_bytes = {0, 2 * static_cast<uint64_t>(columns)},
       .box = {64, 64},
       .swizzle = arch::Swizzle::k128B});
}

template <typename Traits>
void launch_pipeline(const uint32_t* input, uint32_t* output, cudaStream_t stream) {
  const PipelineShape shape = kPipelineShape;
  const uint32_t* b = input + kPipelineWordsA;
  const CUtensorMap map_b =
      Traits::kInRegisters ? matrix_map(b, shape.k, shape.n) : matrix_map(b, shape.n, shape.k);
  arch::launch("pipeline", &pipeline_kernel<Traits>,
               {dim3(kPipelineBlocks), dim3(Traits::kThreads), sizeof(typename Traits::Storage)},
               stream, matrix_map(input, shape.m, shape.k), map_b,
               matrix_map(output, shape.m, shape.n), shape);
}

template <typename Traits>
void expect_pipeline(std::span<const uint32_t> input, std::span<Expected> output) {
  const PipelineShape shape = kPipelineShape;
  std::vector<double> elements;
  for (const uint32_t word : input) {
    elements.push_back(decode(word & 0xffff, kPipelineFormat<Traits>));
    elements.push_back(decode(word >> 16, kPipelineFormat<Traits>));
  }
  const double* a = elements.data();
  const double* b = a + 2 * kPipelineWordsA;
  for (std::size_t i = 0; i < 2 * output.size(); ++i) {
    const int64_t m = static_cast<int64_t>(i) / shape.n;
    const int64_t n = static_cast<int64_t>(i) % shape.n;
    double sum = 0;
    for (int64_t k = 0; k < shape.k; ++k) {
      sum += a[m * shape.k + k] * b[Traits::kInRegisters ? k * shape.n + n : n * shape.k + k];
    }
    output[i / 2].word |= encode(sum, kPipelineFormat<Traits>) << (16 * (i % 2));
  }
}

}  // namespace minference::gpu_test
