// Merging of two partial attentions, after stage 3. Row by row:
//
//     lse = log(exp(lse_a) + exp(lse_b))      out = out_a exp(lse_a - lse) + out_b exp(lse_b - lse)
//
// A block takes a tile of rows in two steps: one thread per row weighs the parts, then all threads
// merge 16 bytes at a time. So a single thread reads and writes each lse, and each 16 bytes of out:
// both may be in place.
//
// Bound by memory: two rows read, one written. With 128 dims, 32 heads and 1M tokens that is 26 GB,
// 6 ms at 4.3 TB/s, 90 % of what an H200 has.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/check.h"
#include "cuda/arch/element.h"
#include "cuda/arch/launch.h"
#include "cuda/arch/shared.h"
#include "cuda/common/stages.h"
#include "cuda/device/rows.h"

namespace minference::cuda {
namespace {

using device::kPieceElements;
using device::RowPiece;

/// Where the parts of a row are, in elements, and their shares.
struct MergeRow {
  int64_t out_a, out_b, out;
  float weight_a, weight_b;
};

template <typename Element_>
struct MergeTraits {
  using Element = Element_;
  static constexpr int kThreads = 256;
  // Vectors of each thread, all loaded before the first is stored: up to 128 bytes in flight. The
  // five blocks that 48 registers allow have 160 KiB in flight per SM if all merge. An H200's 36
  // GB/s per SM at 800 ns need only 29, so that blocks may spend most of their time weighing.
  static constexpr int kPieces = 4;
  static constexpr int kMaxRows = kThreads;

  struct SharedStorage {
    MergeRow rows[kMaxRows];
  };
};

/// Each call decides which of tokens and heads is `inner`: the one that is closer together in out,
/// so that a tile of rows is contiguous memory if any such order exists.
struct RowIndex {
  int64_t batch, outer, inner;
};

template <typename T>
struct Rows {
  T* data;
  int64_t batch_stride, outer_stride, inner_stride;  // Elements.

  __device__ int64_t offset(const RowIndex& row) const {
    return row.batch * batch_stride + row.outer * outer_stride + row.inner * inner_stride;
  }
};

struct MergeParams {
  Rows<const uint16_t> out_a, out_b;  // Rows are 16-byte aligned.
  Rows<uint16_t> out;
  Rows<const float> lse_a, lse_b;
  Rows<float> lse;
  int64_t num_rows;  // batch * num_outer * num_inner
  int32_t num_outer, num_inner;
  int32_t pieces_per_row;
  int32_t rows_per_tile;    // At most kMaxRows rows and kThreads * kPieces vectors.
  uint32_t pieces_inverse;  // 2^16 / pieces_per_row, rounded up.
};

__device__ RowIndex row_index(const MergeParams& params, int64_t row) {
  const int64_t outer = row / params.num_inner;
  return {outer / params.num_outer, outer % params.num_outer, row % params.num_inner};
}

struct Weights {
  float a, b, lse;
};

/// Shares of the two parts in their common softmax. +inf and NaN in either make all of them NaN.
__device__ Weights weigh(float lse_a, float lse_b) {
  if (lse_a == -INFINITY && lse_b == -INFINITY) return {0, 0, -INFINITY};
  const float max = fmaxf(lse_a, lse_b);
  const float a = expf(lse_a - max), b = expf(lse_b - max);
  const float sum = a + b;
  // One of them is 1: the product is the other one, while the sum has lost its low bits.
  return {a / sum, b / sum, max + log1pf(a * b)};
}

template <typename Element>
__device__ RowPiece merge_piece(const RowPiece& a, const RowPiece& b, const MergeRow& row) {
  RowPiece merged;
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    const arch::FloatPair x = arch::unpack_elements<Element>(a.words[w]);
    const arch::FloatPair y = arch::unpack_elements<Element>(b.words[w]);
    merged.words[w] =
        arch::pack_elements<Element>(fmaf(y.low, row.weight_b, x.low * row.weight_a),
                                     fmaf(y.high, row.weight_b, x.high * row.weight_a));
  }
  return merged;
}

/// Step 1: a thread per row of the tile.
template <typename Traits>
__device__ void weigh_rows(const MergeParams& params, int64_t first_row, int32_t num_rows,
                           typename Traits::SharedStorage& storage) {
  const auto thread = static_cast<int32_t>(threadIdx.x);
  if (thread < num_rows) {
    const RowIndex row = row_index(params, first_row + thread);
    const Weights weights = weigh(params.lse_a.data[params.lse_a.offset(row)],
                                  params.lse_b.data[params.lse_b.offset(row)]);
    params.lse.data[params.lse.offset(row)] = weights.lse;
    storage.rows[thread] = {.out_a = params.out_a.offset(row),
                            .out_b = params.out_b.offset(row),
                            .out = params.out.offset(row),
                            .weight_a = weights.a,
                            .weight_b = weights.b};
  }
  __syncthreads();  // The rows of the tile are listed.
}

/// A 16-byte vector of the tile: its row, and its first dim.
struct PiecePlace {
  uint32_t row;
  int64_t dim;
};

__device__ PiecePlace place_of(const MergeParams& params, uint32_t piece) {
  const uint32_t row = piece * params.pieces_inverse >> 16;
  return {row, (piece - row * static_cast<uint32_t>(params.pieces_per_row)) * kPieceElements};
}

/// Adds nothing, not even a sign.
constexpr uint32_t kNegativeZeros = 0x80008000u;

/// Step 2: 16 bytes at a time, all threads. A part without weight is not read: it may hold NaN.
template <typename Traits>
__device__ void merge_rows(const MergeParams& params, int32_t num_rows,
                           const typename Traits::SharedStorage& storage) {
  const auto num_pieces = static_cast<uint32_t>(num_rows * params.pieces_per_row);
  RowPiece a[Traits::kPieces], b[Traits::kPieces];
#pragma unroll
  for (int i = 0; i < Traits::kPieces; ++i) {
    a[i] = RowPiece{};
    b[i] = RowPiece{{kNegativeZeros, kNegativeZeros, kNegativeZeros, kNegativeZeros}};
    const uint32_t piece = threadIdx.x + static_cast<uint32_t>(i * Traits::kThreads);
    if (piece >= num_pieces) continue;
    const PiecePlace place = place_of(params, piece);
    const MergeRow& row = storage.rows[place.row];
    if (row.weight_a != 0) {
      a[i] = *reinterpret_cast<const RowPiece*>(params.out_a.data + row.out_a + place.dim);
    }
    if (row.weight_b != 0) {
      b[i] = *reinterpret_cast<const RowPiece*>(params.out_b.data + row.out_b + place.dim);
    }
  }
#pragma unroll
  for (int i = 0; i < Traits::kPieces; ++i) {
    const uint32_t piece = threadIdx.x + static_cast<uint32_t>(i * Traits::kThreads);
    if (piece >= num_pieces) continue;
    const PiecePlace place = place_of(params, piece);
    const MergeRow& row = storage.rows[place.row];
    *reinterpret_cast<RowPiece*>(params.out.data + row.out + place.dim) =
        merge_piece<typename Traits::Element>(a[i], b[i], row);
  }
}

/// Grid: tiles of rows_per_tile rows.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads)
    merge_attention_kernel(const __grid_constant__ MergeParams params) {
  auto& storage = arch::shared_storage<typename Traits::SharedStorage>();
  const int64_t first_row = int64_t{blockIdx.x} * params.rows_per_tile;
  const int64_t rows_left = params.num_rows - first_row;
  const int32_t num_rows =
      rows_left < params.rows_per_tile ? static_cast<int32_t>(rows_left) : params.rows_per_tile;
  weigh_rows<Traits>(params, first_row, num_rows, storage);
  merge_rows<Traits>(params, num_rows, storage);
}

template <typename T, typename Pointer>
Rows<T> rows_of(const BasicTokens<Pointer>& x, bool heads_inner) {
  return {.data = static_cast<T*>(x.data),
          .batch_stride = x.batch_stride,
          .outer_stride = heads_inner ? x.token_stride : x.head_stride,
          .inner_stride = heads_inner ? x.head_stride : x.token_stride};
}

template <typename T>
Rows<T> rows_of(const BasicRowValues<T*>& x, bool heads_inner) {
  return {.data = x.data,
          .batch_stride = x.batch_stride,
          .outer_stride = heads_inner ? x.row_stride : x.head_stride,
          .inner_stride = heads_inner ? x.head_stride : x.row_stride};
}

template <typename Traits>
MergeParams make_params(const MergeArgs& args) {
  const Shape& shape = args.shape;
  const int32_t seqlen_q = shape.lengths.seqlen_q;
  const bool heads_inner = args.out.head_stride <= args.out.token_stride;
  const int32_t pieces = shape.head_dim / kPieceElements;
  constexpr int32_t kTilePieces = Traits::kThreads * Traits::kPieces;
  constexpr int32_t kMaxPieces = 256 / kPieceElements;
  // piece * pieces_inverse >> 16 is piece / pieces_per_row: the inverse is too large by less than
  // pieces_per_row / 2^16 of itself, the quotient by less than 1 / pieces_per_row.
  static_assert(kTilePieces * kMaxPieces <= 1 << 16);
  MINF_ASSERT(shape.head_dim % kPieceElements == 0 && pieces <= kMaxPieces);
  return {.out_a = rows_of<const uint16_t>(args.out_a, heads_inner),
          .out_b = rows_of<const uint16_t>(args.out_b, heads_inner),
          .out = rows_of<uint16_t>(args.out, heads_inner),
          .lse_a = rows_of(args.lse_a, heads_inner),
          .lse_b = rows_of(args.lse_b, heads_inner),
          .lse = rows_of(args.lse, heads_inner),
          .num_rows = int64_t{shape.batch} * shape.num_heads_q * seqlen_q,
          .num_outer = heads_inner ? seqlen_q : shape.num_heads_q,
          .num_inner = heads_inner ? shape.num_heads_q : seqlen_q,
          .pieces_per_row = pieces,
          .rows_per_tile = std::min(Traits::kMaxRows, kTilePieces / pieces),
          .pieces_inverse = static_cast<uint32_t>(((1 << 16) + pieces - 1) / pieces)};
}

template <typename Traits>
void launch(const MergeArgs& args, cudaStream_t stream) {
  const MergeParams params = make_params<Traits>(args);
  const int64_t num_tiles = (params.num_rows + params.rows_per_tile - 1) / params.rows_per_tile;
  MINF_ASSERT(num_tiles <= INT32_MAX);  // A grid's limit, and at least 8 TB of out.
  arch::launch("merge_attention", &merge_attention_kernel<Traits>,
               {dim3(static_cast<unsigned>(num_tiles)), dim3(Traits::kThreads),
                sizeof(typename Traits::SharedStorage)},
               stream, params);
}

}  // namespace

void merge_attention(const MergeArgs& args, const Executor& executor) {
  const auto stream = static_cast<cudaStream_t>(executor.stream);
  if (args.shape.dtype == DType::kBFloat16) {
    launch<MergeTraits<arch::BFloat16>>(args, stream);
  } else {
    launch<MergeTraits<arch::Float16>>(args, stream);
  }
}

}  // namespace minference::cuda
