// See gather_columns.h.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <limits>

#include "core/check.h"
#include "cuda/arch/launch.h"
#include "cuda/common/gather_columns.h"
#include "cuda/device/thread_group.h"

namespace minference::cuda {
namespace {

/// Bound by memory: a thread has 16 bytes of a row in flight at a time, a multiprocessor 32 KiB.
struct GatherTraits {
  static constexpr int kThreads = 256;
};

constexpr int64_t kElementBytes = 2;

struct GatherParams {
  Sequences sequences;
  KvRows k;
  KvRows v;
  const HeadKeys* heads;
  GatheredRows keys;
  GatheredRows values;
  int32_t num_heads_q;
  int32_t group_size;
  int32_t num_tiles;  // Of 64 columns, of each head.
};

/// Copies the rows of columns [first, first + 64), as far as there is space; zeros past the last
/// column.
template <typename Traits>
__device__ inline void gather_rows(const HeadRows<std::byte>& from, const GatheredRows& to,
                                   const HeadKeys& head, int64_t head_idx, int32_t first) {
  constexpr int kPieceBytes = 16;
  const int32_t row_pieces = to.dims * kElementBytes / kPieceBytes;
  auto* const target = static_cast<std::byte*>(to.data) +
                       (head_idx * to.num_columns + first) * to.dims * kElementBytes;
  const int32_t num_rows = min(kBlock, to.num_columns - first);
  for (auto i = static_cast<int32_t>(threadIdx.x); i < num_rows * row_pieces;
       i += Traits::kThreads) {
    const int32_t row = i / row_pieces, piece = i % row_pieces;
    uint4 bits{};
    if (first + row < head.num_columns) {
      bits = *reinterpret_cast<const uint4*>(from.row(head.columns[first + row]) +
                                             piece * kPieceBytes);
    }
    *reinterpret_cast<uint4*>(target + int64_t{i} * kPieceBytes) = bits;
  }
}

/// Grid: tiles of 64 columns x batch * num_heads_q, tiles fastest.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads)
    gather_columns_kernel(const __grid_constant__ GatherParams params) {
  const auto head_idx = static_cast<int32_t>(blockIdx.x) / params.num_tiles;
  const int32_t first = static_cast<int32_t>(blockIdx.x) % params.num_tiles * kBlock;
  const HeadKeys& head = params.heads[head_idx];
  if (head.form != Form::kRuns || first >= head.num_columns) return;
  const Sequence sequence = params.sequences.at(head_idx / params.num_heads_q);
  const int32_t head_kv = head_idx % params.num_heads_q / params.group_size;
  gather_rows<Traits>(params.k.head<std::byte>(sequence, head_kv, kElementBytes), params.keys, head,
                      head_idx, first);
  gather_rows<Traits>(params.v.head<std::byte>(sequence, head_kv, kElementBytes), params.values,
                      head, head_idx, first);
}

}  // namespace

void gather_columns(const AttentionArgs& args, const HeadKeys* heads, const GatheredRows& keys,
                    const GatheredRows& values, cudaStream_t stream) {
  const Shape& shape = args.shape;
  const int32_t num_tiles = (keys.num_columns + kBlock - 1) / kBlock;
  const int64_t num_blocks = int64_t{shape.batch} * shape.num_heads_q * num_tiles;
  MINF_ASSERT(num_blocks <= std::numeric_limits<int32_t>::max());
  arch::launch("gather_columns", &gather_columns_kernel<GatherTraits>,
               {dim3(static_cast<unsigned>(num_blocks)), dim3(GatherTraits::kThreads)}, stream,
               GatherParams{.sequences = shape.sequences(),
                            .k = args.k,
                            .v = args.v,
                            .heads = heads,
                            .keys = keys,
                            .values = values,
                            .num_heads_q = shape.num_heads_q,
                            .group_size = shape.group_size(),
                            .num_tiles = num_tiles});
}

}  // namespace minference::cuda
