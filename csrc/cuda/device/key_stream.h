// K from global to shared memory: 64-key tiles of one KV head, fetched by the whole block ahead of
// their use (cp.async), with zeros past the sequence's end and past head_dim.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>

#include "core/kv_rows.h"
#include "core/pattern.h"
#include "cuda/arch/async_copy.h"
#include "cuda/arch/element.h"
#include "cuda/device/rows.h"

namespace minference::device {

/// 64 keys, padded to kHeadDim dimensions. Eight rows that ldmatrix reads together begin 16 bytes
/// apart (mod 128), or 80 at kHeadDim 96, which visits the same eight places: no bank conflict.
template <typename Element, int kHeadDim>
struct KeyTile {
  static_assert(arch::kIsElement<Element> && kHeadDim % 16 == 0);
  static constexpr int kPitch = kHeadDim + kPieceElements;
  static constexpr int kPieces = kHeadDim / kPieceElements;
  static constexpr unsigned kRowThreads = std::bit_ceil(unsigned{kPieces});
  static_assert(kRowThreads <= 32);

  alignas(16) Element rows[kBlock * kPitch];
};

/// The keys of one sequence and KV head, and how many there are.
template <typename Element>
struct KeyHead {
  HeadRows<Element> rows;
  int32_t seqlen_k;
  int32_t head_dim;
};

/// Issues the block's copies of keys [first_key, first_key + 64). A thread copies the same 16-byte
/// vector of each of its rows: blockDim.x is a multiple of 32. (At kHeadDim 96 and 192 a quarter of
/// the threads idle; dividing by 12 or 24 would take longer.)
template <typename Element, int kHeadDim>
__device__ inline void load_key_tile(KeyTile<Element, kHeadDim>& tile, const KeyHead<Element>& head,
                                     int32_t first_key) {
  using Tile = KeyTile<Element, kHeadDim>;
  const auto dim = static_cast<int>(threadIdx.x % Tile::kRowThreads * kPieceElements);
  const auto first_row = static_cast<int>(threadIdx.x / Tile::kRowThreads);
  const auto step = static_cast<int>(blockDim.x / Tile::kRowThreads);
  if (dim >= kHeadDim) return;
  const int num_rows = dim < head.head_dim ? head.seqlen_k - first_key : 0;
  const Element* source = head.rows.row(first_key + first_row) + dim;
  for (int row = first_row; row < kBlock; row += step) {
    const bool exists = row < num_rows;
    arch::cp_async_16(&tile.rows[row * Tile::kPitch + dim], exists ? source : head.rows.first,
                      exists ? 16 : 0);
    source += step * head.rows.stride;
  }
}

/// Tiles of consecutive keys through kStages buffers. All threads of the block take part.
///
/// One barrier per tile, in wait(). Before it, every thread has waited for its own copies of the
/// tile and has read the previous tile; after it, the tile is complete and the previous tile's
/// buffer may be overwritten.
template <typename Element, int kHeadDim, int kStages>
class KeyStream {
 public:
  using Tile = KeyTile<Element, kHeadDim>;
  struct Buffers {
    Tile tile[kStages];
  };
  static_assert(kStages >= 2);

  __device__ KeyStream(Buffers& buffers, const KeyHead<Element>& head, int32_t first_key,
                       int32_t num_tiles)
      : buffers_(buffers), head_(head), first_key_(first_key), num_tiles_(num_tiles) {
    for (int tile = 0; tile < kStages - 1; ++tile) prefetch(tile);
  }

  /// Tiles come in order, from 0. Past the last one this is a barrier only.
  __device__ const Tile& wait(int32_t tile) {
    arch::cp_async_wait<kStages - 2>();
    __syncthreads();
    prefetch(tile + kStages - 1);
    return buffers_.tile[tile % kStages];
  }

 private:
  /// Every thread closes one group per tile, empty or not, so that wait() can count groups.
  __device__ void prefetch(int32_t tile) {
    if (tile < num_tiles_) {
      load_key_tile(buffers_.tile[tile % kStages], head_, first_key_ + tile * kBlock);
    }
    arch::cp_async_commit();
  }

  Buffers& buffers_;
  const KeyHead<Element> head_;
  const int32_t first_key_;
  const int32_t num_tiles_;
};

}  // namespace minference::device
