// Stage 3 on sm80: queries, keys and values from global to shared memory by cp.async.
//
// Keys and values of a tile pass through the same ring of buffers, K0 V0 K1 V1 ... Each fill (a
// stage of the ring) is started kFills - 1 fills before its use: that many are in flight while one
// is used. Rows that no row block attends are zeros, and are not read; so are dims past head_dim.
//
//     barrier                who arrives    before it            after it
//     of fill f, in wait()   all threads    own copies of fill   fill f is whole
//                                           f have landed
//                                           fill f - 1 is read   its buffer is filled anew
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/kv_rows.h"
#include "cuda/arch/async_copy.h"
#include "cuda/arch/math.h"
#include "cuda/device/tile_walk.h"
#include "cuda/sm80/kernels.h"

namespace minference::sm80 {

/// Which 16 bytes of which rows a thread copies: vector `piece` of rows first, first + kStep, ...
template <typename Rows, int kThreads>
struct CopyShare {
  static constexpr int kStep = kThreads / Rows::kRowThreads;
  static_assert(kStep % 4 == 0);
  int first;
  int piece;

  __device__ CopyShare() {
    const uint32_t thread = arch::opaque(threadIdx.x);
    first = static_cast<int>(thread / Rows::kRowThreads);
    piece = static_cast<int>(thread % Rows::kRowThreads);
  }

  /// Some threads have no vector if a row's number of them is not a power of two.
  __device__ bool has_piece() const {
    return Rows::kPieces == Rows::kRowThreads || piece < Rows::kPieces;
  }
  /// Bytes of the piece that exist in rows of `dims` dimensions.
  __device__ int piece_bytes(int32_t dims) const {
    return piece * device::kPieceElements < dims ? device::kPieceBytes : 0;
  }
  /// Offset of the thread's piece of its first row in shared memory.
  __device__ uint32_t place() const { return Rows::offset(first, piece); }
  /// Where the thread's piece of its first row is read, of rows from `row` on.
  template <typename Element>
  __device__ const std::byte* source(const HeadRows<Element>& from, int64_t row) const {
    return reinterpret_cast<const std::byte*>(from.row(row + first) +
                                              piece * device::kPieceElements);
  }
};

/// Issues a thread's copies of kRows rows, each `step` bytes after the previous one: bytes(i)
/// bytes, 16 or 0, and zeros, of row first + i. If bytes(i) is 0, nothing is read. The pointer
/// moves on from row to row: a 64-bit product for every row was a third of all instructions of a
/// tile.
template <typename Rows, int kRows, int kStep, int kUnroll, typename Bytes>
__device__ inline void copy_rows(uint32_t to, const std::byte* from, int64_t step,
                                 const Bytes& bytes) {
  static_assert(kRows % kStep == 0);
#pragma unroll kUnroll
  for (int i = 0; i < kRows; i += kStep) {
    arch::cp_async_16(Rows::add_rows(to, i), from, bytes(i));
    from += step;
  }
}

/// The first `num_rows` of the kRows queries from row `first` on, of `dims` dimensions.
template <typename Traits>
__device__ inline void load_query(typename Traits::SharedStorage& storage,
                                  const HeadRows<typename Traits::Element>& q, int32_t dims,
                                  int32_t first, int32_t num_rows) {
  using Rows = typename Traits::QueryRows;
  using Share = CopyShare<Rows, Traits::kThreads>;
  const Share share;
  if (!share.has_piece()) return;
  const int piece_bytes = share.piece_bytes(dims);
  const int64_t row_bytes = q.stride * static_cast<int64_t>(sizeof(typename Traits::Element));
  copy_rows<Rows, Traits::kRows, Share::kStep, 4>(
      arch::shared_address(storage.query) + share.place(), share.source(q, first),
      Share::kStep * row_bytes,
      [&](int i) { return share.first + i < num_rows ? piece_bytes : 0; });
}

/// The ring of buffers, filled for the tiles of a walk. All threads of the block call together.
template <typename Traits>
class KeyValueRing {
 public:
  using Element = typename Traits::Element;
  using Walk = device::TileWalk<typename Traits::Group>;
  /// Parts of a tile that follow one another in the ring.
  static constexpr int kParts = kBlock / Traits::kFillKeys;

  __device__ KeyValueRing(typename Traits::SharedStorage& storage, Walk& walk,
                          const AttentionParams& params, const Sequence& sequence, int32_t head_kv)
      : storage_(storage),
        walk_(walk),
        k_(params.k.head<Element>(sequence, head_kv), params.head_dim, params.k_steps),
        v_(params.v.head<Element>(sequence, head_kv), params.head_dim_v, params.v_steps),
        last_(arch::shared_address(storage.fills[Traits::kFills - 1])) {
#pragma unroll 1
    for (int fill = 0; fill < Traits::kFills - 1; ++fill) {
      start(fill / 2, /*is_values=*/fill % 2 != 0, arch::shared_address(storage.fills[fill]));
    }
  }

  /// Whether the walk has a part of a tile of this number, counted from 0 over all tiles: of the
  /// next part to wait for.
  __device__ bool has(int32_t part) const { return walk_.has_queued(part / kParts); }

  /// The keys, then the values, of one part after the other: address in the shared window.
  __device__ uint32_t wait_keys(int32_t part) { return wait(part, Traits::kFills - 1); }
  __device__ uint32_t wait_values(int32_t part) { return wait(part, Traits::kFills); }

 private:
  /// What a thread copies of a head's keys or values.
  template <typename Rows>
  struct Source {
    const std::byte* begin;  // Its piece of its first row, of rows from 0 on.
    int32_t piece_bytes;
    uint32_t place;
    const RowSteps& steps;

    __device__ Source(const HeadRows<Element>& from, int32_t dims, const RowSteps& row_steps)
        : steps(row_steps) {
      const CopyShare<Rows, Traits::kThreads> share;
      begin = share.source(from, 0);
      piece_bytes = share.piece_bytes(dims);
      place = share.place();
    }
  };

  /// Waits for the next fill, and starts the one `ahead` fills after the keys of `part`.
  __device__ uint32_t wait(int32_t part, int ahead) {
    arch::cp_async_wait<Traits::kFills - 2>();
    __syncthreads();  // See the table above.
    const uint32_t free = last_;
    const uint32_t first = arch::shared_address(storage_.fills[0]);
    last_ += uint32_t{sizeof(storage_.fills[0])};
    if (last_ == first + uint32_t{sizeof(storage_.fills)}) last_ = first;
    start(part + ahead / 2, /*is_values=*/ahead % 2 != 0, free);
    return last_;
  }

  /// Every thread closes one group per fill, empty or not, so that wait() can count groups. The
  /// first one includes the queries. Values follow the keys of the same part, so it is already
  /// known whether the part exists.
  __device__ void start(int32_t part, bool is_values, uint32_t to) {
    const int32_t number = part / kParts;
    if (is_values ? walk_.has_queued(number) : walk_.has(number)) {
      const device::PairTile& tile = walk_[number];
      const int first_key = part % kParts * Traits::kFillKeys;
      if (is_values) {
        copy_part(to, v_, tile, first_key);
      } else {
        copy_part(to, k_, tile, first_key);
      }
    }
    arch::cp_async_commit();
  }

  /// Entries of the column list were read when the tile was found, a batch ago, and are in L1: the
  /// gather waits for no memory before it starts.
  template <typename Rows>
  __device__ void copy_part(uint32_t to, const Source<Rows>& from, const device::PairTile& tile,
                            int first_key) const {
    constexpr int kKeys = Traits::kFillKeys;
    constexpr int kStep = CopyShare<Rows, Traits::kThreads>::kStep;
    if (Rows::kPieces != Rows::kRowThreads && !CopyShare<Rows, Traits::kThreads>().has_piece()) {
      return;
    }
    to += from.place;
    const int32_t begin = tile.begin + first_key;
    // 32 bits by 64, unsigned: that saves a multiplication.
    const std::byte* const source = from.begin + uint64_t{static_cast<uint32_t>(begin)} *
                                                     static_cast<uint64_t>(from.steps.next);
    if (tile.whole != 0) {
      copy_rows<Rows, kKeys, kStep, kKeys / kStep>(to, source, from.steps.next_copied,
                                                   [&](int) { return from.piece_bytes; });
      return;
    }
    const CopyShare<Rows, Traits::kThreads> share;
    const uint64_t loaded = tile.loaded() >> first_key & low_bits(kKeys);
    const auto bytes = [&](int i) {
      return (loaded >> (share.first + i) & 1) != 0 ? from.piece_bytes : 0;
    };
    if (tile.columns == 0) {
      copy_rows<Rows, kKeys, kStep, 4>(to, source, from.steps.next_copied, bytes);
      return;
    }
    const int32_t* const columns = walk_.head().columns + begin + share.first;
#pragma unroll 4
    for (int i = 0; i < kKeys; i += kStep) {
      const int row_bytes = bytes(i);
      const int64_t row = row_bytes != 0 ? columns[i] - share.first : 0;
      arch::cp_async_16(Rows::add_rows(to, i), from.begin + row * from.steps.next, row_bytes);
    }
  }

  typename Traits::SharedStorage& storage_;
  Walk& walk_;
  const Source<typename Traits::QueryRows> k_;
  const Source<typename Traits::ValueRows> v_;
  uint32_t last_;  // Buffer of the fill that was waited for last.
};

}  // namespace minference::sm80
