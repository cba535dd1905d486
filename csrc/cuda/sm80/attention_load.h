// Stage 3 on sm80: queries, keys and values from global to shared memory by cp.async.
//
// Keys and values of a tile pass through the same ring of buffers, K0 V0 K1 V1 ..., each fill
// started kFills - 1 fills before its use: so many are on their way while one is used.
// Rows that no row block attends are zeros, and are not read; so are dims past head_dim.
//
//     barrier                who arrives    before it            after it
//     of fill f, in wait()   all threads    own copies of fill   fill f is whole
//                                           f have landed
//                                           fill f - 1 is read   its buffer is filled anew
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/async_copy.h"
#include "cuda/arch/opaque.h"
#include "cuda/device/tile_walk.h"
#include "cuda/sm80/attention.h"

namespace minference::sm80 {

/// The rows of one head of a tensor.
template <typename Element>
struct HeadRows {
  const Element* rows;
  int64_t stride;  // Elements; a multiple of 8, as is the address.
  int32_t dims;

  __device__ HeadRows(const ConstTokens& tensor, int64_t batch, int64_t head, int32_t head_dim)
      : rows(static_cast<const Element*>(tensor.data) + batch * tensor.batch_stride +
             head * tensor.head_stride),
        stride(tensor.token_stride),
        dims(head_dim) {}
};

/// Rows one after the other. A pointer that moves on: a product of 64 bits for every row was a
/// third of all instructions of a tile.
template <typename Element>
struct ConsecutiveRows {
  const Element* next;
  int64_t step;

  __device__ const Element* operator()(int /*row*/) {
    const Element* const row = next;
    next += step;
    return row;
  }
};

/// Issues the copies of kRows rows by all kThreads threads: row i is where exists(i), else zeros.
/// make_source(first, step, dim) gives what is called with rows first, first + step, ... in turn
/// for where each has dimension `dim`; nothing is read there of rows that do not exist.
template <typename Rows, int kRows, int kThreads, typename Element, typename MakeSource,
          typename Exists>
__device__ inline void copy_rows(Element* to, int32_t dims, const MakeSource& make_source,
                                 const Exists& exists) {
  constexpr int kStep = kThreads / Rows::kRowThreads;
  static_assert(kRows % kStep == 0 && kStep % 4 == 0);
  const uint32_t thread = arch::opaque(threadIdx.x);
  const auto first = static_cast<int>(thread / Rows::kRowThreads);
  const auto piece = static_cast<int>(thread % Rows::kRowThreads);
  if (piece >= Rows::kPieces) return;
  const uint32_t address = arch::shared_address(to) + Rows::offset(first, piece);
  const bool in_dims = piece * device::kPieceElements < dims;
  auto source = make_source(first, kStep, piece * device::kPieceElements);
#pragma unroll 4
  for (int i = 0; i < kRows; i += kStep) {
    arch::cp_async_16(Rows::add_rows(address, i), source(first + i),
                      in_dims && exists(first + i) ? 16 : 0);
  }
}

/// The same for rows [begin, begin + kRows) of a tensor.
template <typename Rows, int kRows, int kThreads, typename Element, typename Exists>
__device__ inline void copy_consecutive_rows(Element* to, const HeadRows<Element>& from,
                                             int32_t begin, const Exists& exists) {
  copy_rows<Rows, kRows, kThreads>(
      to, from.dims,
      [&](int first, int step, int dim) {
        return ConsecutiveRows<Element>{
            .next = from.rows + (int64_t{begin} + first) * from.stride + dim,
            .step = step * from.stride};
      },
      exists);
}

/// The first `num_rows` of the kRows queries from row `first` on.
template <typename Traits>
__device__ inline void load_query(typename Traits::SharedStorage& storage,
                                  const HeadRows<typename Traits::Element>& q, int32_t first,
                                  int32_t num_rows) {
  copy_consecutive_rows<typename Traits::QueryRows, Traits::kRows, Traits::kThreads>(
      storage.query, q, first, [&](int row) { return row < num_rows; });
}

/// The ring of buffers, filled for the tiles of a walk. All threads of the block call together.
template <typename Traits>
class KeyValueRing {
 public:
  using Element = typename Traits::Element;
  using Walk = device::TileWalk<typename Traits::Group>;
  /// Parts of a tile that pass one after the other.
  static constexpr int kParts = kBlock / Traits::kFillKeys;

  __device__ KeyValueRing(typename Traits::SharedStorage& storage, Walk& walk,
                          const HeadRows<Element>& k, const HeadRows<Element>& v)
      : storage_(storage), walk_(walk), k_(k), v_(v) {
#pragma unroll 1
    for (int fill = 0; fill < Traits::kFills - 1; ++fill) start(fill);
  }

  /// Whether the walk has a part of a tile of this number, counted from 0 over all tiles.
  __device__ bool has(int32_t part) { return walk_.has(part / kParts); }

  /// The keys, or values, of a part: address in the shared window.
  __device__ uint32_t wait_keys(int32_t part) { return wait(2 * part); }
  __device__ uint32_t wait_values(int32_t part) { return wait(2 * part + 1); }

 private:
  /// Fills come in order, from 0. Returns the address of one in the shared window.
  __device__ uint32_t wait(int32_t fill) {
    arch::cp_async_wait<Traits::kFills - 2>();
    __syncthreads();  // See the table above.
    start(fill + Traits::kFills - 1);
    return arch::shared_address(storage_.fills[fill % Traits::kFills]);
  }

  /// Every thread closes one group per fill, empty or not, so that wait() can count groups. The
  /// first one has the queries in it.
  __device__ void start(int32_t fill) {
    const int32_t part = fill / 2;
    if (has(part)) {
      Element* const to = storage_.fills[fill % Traits::kFills];
      const device::PairTile& tile = walk_[part / kParts];
      const int first_key = part % kParts * Traits::kFillKeys;
      if (fill % 2 == 0) {
        copy_keys<typename Traits::QueryRows>(to, k_, tile, first_key);
      } else {
        copy_keys<typename Traits::ValueRows>(to, v_, tile, first_key);
      }
    }
    arch::cp_async_commit();
  }

  /// Entries of the column list were read when the tile was found, a batch ago, and lie in L1: the
  /// gather waits for no memory before it can start.
  template <typename Rows>
  __device__ void copy_keys(Element* to, const HeadRows<Element>& from,
                            const device::PairTile& tile, int first_key) const {
    const uint64_t loaded = tile.loaded() >> first_key & low_bits(Traits::kFillKeys);
    const int32_t begin = tile.begin + first_key;
    const auto exists = [&](int row) { return (loaded >> row & 1) != 0; };
    if (tile.columns != 0) {
      const int32_t* const columns = walk_.head().columns + begin;
      copy_rows<Rows, Traits::kFillKeys, Traits::kThreads>(
          to, from.dims,
          [&](int, int, int dim) {
            return [&, dim](int row) {
              const int32_t key = exists(row) ? columns[row] : 0;
              return from.rows + key * from.stride + dim;
            };
          },
          exists);
    } else if (loaded == low_bits(Traits::kFillKeys)) {
      copy_consecutive_rows<Rows, Traits::kFillKeys, Traits::kThreads>(to, from, begin,
                                                                       [](int) { return true; });
    } else {
      copy_consecutive_rows<Rows, Traits::kFillKeys, Traits::kThreads>(to, from, begin, exists);
    }
  }

  typename Traits::SharedStorage& storage_;
  Walk& walk_;
  const HeadRows<Element> k_;
  const HeadRows<Element> v_;
};

}  // namespace minference::sm80
