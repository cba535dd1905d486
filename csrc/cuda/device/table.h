// Small tables from host to device memory, carried by value in kernel parameters: unlike a copy
// from the caller's memory this needs no pinned buffer, does not wait, and a captured graph replays
// it with the same contents.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cuda/arch/launch.h"

namespace minference::device {

/// Of the 4 KiB of parameters that every driver accepts; some are left to pointers and counts.
inline constexpr std::size_t kTableChunkBytes = 3840;

struct TableChunk {
  alignas(16) uint32_t words[kTableChunkBytes / 4];
};

/// One block of 256 threads.
template <int kUnused = 0>
__global__ void store_table_kernel(const __grid_constant__ TableChunk chunk, uint32_t* table,
                                   int32_t num_words) {
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < num_words; i += 256) {
    table[i] = chunk.words[i];
  }
}

/// Enqueues the copy of `count` host elements to `table` in device memory.
template <typename T>
void store_table(const T* elements, std::size_t count, T* table, cudaStream_t stream) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % 4 == 0);
  constexpr std::size_t kPerChunk = kTableChunkBytes / sizeof(T);
  for (std::size_t first = 0; first < count; first += kPerChunk) {
    const std::size_t n = count - first < kPerChunk ? count - first : kPerChunk;
    TableChunk chunk{};
    std::memcpy(chunk.words, elements + first, n * sizeof(T));
    arch::launch("store_table", &store_table_kernel<>, {dim3(1), dim3(256)}, stream, chunk,
                 reinterpret_cast<uint32_t*>(table + first),
                 static_cast<int32_t>(n * sizeof(T) / 4));
  }
}

}  // namespace minference::device
