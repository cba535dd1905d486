// Cases of warp-wide matrix instructions that need sm_90.
// SPDX-License-Identifier: Apache-2.0
#include "case.h"
#include "cuda/arch/launch.h"
#include "cuda/arch/matrix.h"
#include "matrix.h"

namespace minference::gpu_test {
namespace {

template <typename Traits>
__global__ void store_kernel(const uint32_t* input, uint32_t* output) {
  auto& storage = arch::shared_storage<typename Traits::Storage>();
  const auto lane = static_cast<int>(threadIdx.x);
  const uint32_t fragment[4] = {input[4 * lane], input[4 * lane + 1], input[4 * lane + 2],
                                input[4 * lane + 3]};
  arch::stmatrix_x4(storage.slots[slot_of_row(lane)], fragment);
  __syncwarp();  // Rows were written by other lanes.
  for (int i = 0; i < 4; ++i) output[4 * lane + i] = storage.slots[slot_of_row(lane)][i];
}

/// Row g of matrix i holds the words i of lanes 4 g to 4 g + 3.
void expect_stores(std::span<const uint32_t> input, std::span<Expected> output) {
  for (std::size_t matrix = 0; matrix < 4; ++matrix) {
    for (std::size_t lane = 0; lane < 32; ++lane) {
      output[32 * matrix + lane].word = input[4 * lane + matrix];
    }
  }
}

}  // namespace

CaseList matrix_sm90_cases() {
  return {{.name = "stmatrix_x4",
           .min_arch = 90,
           .input_words = kMatrixWords,
           .output_words = kMatrixWords,
           .fill = &fill_random,
           .launch =
               [](const uint32_t* input, uint32_t* output, cudaStream_t stream) {
                 arch::launch("store", &store_kernel<MatrixTraits>,
                              {dim3(1), dim3(32), sizeof(MatrixTraits::Storage)}, stream, input,
                              output);
               },
           .expect = &expect_stores}};
}

}  // namespace minference::gpu_test
