// Small tables from host to device memory, carried by value in kernel parameters. Unlike a copy
// from the caller's memory this needs no pinned buffer and does not wait, and a captured graph
// replays it with the same contents.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "cuda/arch/emulation.h"

namespace minference::cuda {

/// Part of the 4 KiB of parameters that every driver accepts; the rest is for pointers and counts.
inline constexpr std::size_t kTableChunkBytes = 3840;

/// Enqueues the copy of `num_words` words to `table` in device memory. Its kernel is in table.cu,
/// one for all architectures: a header's would be built into objects for different ones, and the
/// linker keeps any of them.
void store_table_words(const void* words, std::size_t num_words, uint32_t* table,
                       cudaStream_t stream);

/// Enqueues the copy of `count` host elements to `table` in device memory.
template <typename T>
void store_table(const T* elements, std::size_t count, T* table, cudaStream_t stream) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % 4 == 0);
  store_table_words(elements, count * (sizeof(T) / 4), reinterpret_cast<uint32_t*>(table), stream);
}

}  // namespace minference::cuda
