// See table.h.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cuda/arch/launch.h"
#include "cuda/common/table.h"

namespace minference::cuda {
namespace {

constexpr std::size_t kChunkWords = kTableChunkBytes / 4;

struct TableChunk {
  alignas(16) uint32_t words[kChunkWords];
};

/// One block of 256 threads.
__global__ void store_table_kernel(const __grid_constant__ TableChunk chunk, uint32_t* table,
                                   int32_t num_words) {
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < num_words; i += 256) {
    table[i] = chunk.words[i];
  }
}

}  // namespace

void store_table_words(const void* words, std::size_t num_words, uint32_t* table,
                       cudaStream_t stream) {
  for (std::size_t first = 0; first < num_words; first += kChunkWords) {
    const std::size_t n = std::min(num_words - first, kChunkWords);
    TableChunk chunk{};
    std::memcpy(chunk.words, static_cast<const uint32_t*>(words) + first, 4 * n);
    arch::launch("store_table", &store_table_kernel, {dim3(1), dim3(256)}, stream, chunk,
                 table + first, static_cast<int32_t>(n));
  }
}

}  // namespace minference::cuda
