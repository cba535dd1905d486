// Kernels of the work table (attention_launch.h): tile counts per row block, and which row blocks
// are joined; then a stable radix sort of the items by count, least significant digit first. A pass
// makes a histogram of the digits of each block's part of the items; then every block sums up where
// its items of each digit go, and places them in order.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/key_tiles.h"
#include "cuda/arch/shared.h"
#include "cuda/common/attention_launch.h"
#include "cuda/device/row_block_tiles.h"
#include "cuda/device/thread_group.h"

namespace minference::cuda {

/// 256 row blocks a block: 2048 blocks for 32 heads of 1M tokens, 256 for 128K. 6 on an SM, which
/// are all threads of sm_86: at most 40 registers, because the searches wait for loads.
struct CountRowsTraits {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerSm = 6;
  using Group = device::BlockGroup<kThreads>;
  struct SharedStorage {
    device::RowBlockStorage<Group> row_blocks;
  };
};

/// Tiles that two row blocks of a head of Form::kBlocks attend together: their lists merged.
__device__ inline int32_t count_merged_blocks(const HeadKeys& head, int32_t row_block,
                                              int32_t count_a, int32_t count_b) {
  const int32_t* a = head.blocks + row_block * head.block_stride;
  const int32_t* b = a + head.block_stride;
  const int32_t* const a_end = a + count_a;
  const int32_t* const b_end = b + count_b;
  int32_t count = 0;
  for (; a < a_end && b < b_end; ++count) {
    const int32_t first = *a, second = *b;
    if (first <= second) ++a;
    if (second <= first) ++b;
  }
  return count + static_cast<int32_t>((a_end - a) + (b_end - b));
}

/// About how many tiles row blocks `row_block` and the next one, of count_a and count_b tiles,
/// attend together. For column tiles and window tiles it may be off by one or a few.
__device__ inline int32_t count_pair_tiles(const HeadKeys& head, const Lengths& lengths,
                                           int32_t row_block, int32_t count_a, int32_t count_b) {
  switch (head.form) {
    case Form::kRuns: {
      // Runs: the second row block's tiles, and the farthest tile of each run that the first
      // reaches. Columns: the tiles of the row block with more.
      const RowBlock row(lengths, row_block), next(lengths, row_block + 1);
      const int32_t columns_a = count_column_tiles(head, row);
      const int32_t columns_b = count_column_tiles(head, next);
      return count_b - columns_b + max_of(columns_a, columns_b) +
             count_runs_below(head, head.num_runs, row.end);
    }
    case Form::kBlocks:
      return count_merged_blocks(head, row_block, count_a, count_b);
    default:
      return max_of(count_a, count_b) + 1;  // A window moves on by one tile.
  }
}

/// What the table holds for a row block of `count` tiles. The whole warp calls it; row blocks 2 i
/// and 2 i + 1 are in neighbouring lanes. Heads of Form::kShape share all but one tile.
__device__ inline RowBlockTiles join_row_blocks(const HeadKeys& head, const Lengths& lengths,
                                                int32_t row_block, int32_t count, Joining joining) {
  const bool second = row_block % 2 != 0;
  const int32_t other = __shfl_xor_sync(device::kFullWarp, count, 1);
  bool joined = false;
  int32_t together = 0;
  if (!second && row_block + 1 < lengths.row_blocks()) {
    together = count_pair_tiles(head, lengths, row_block, count, other);
    const bool estimated = head.form != Form::kShape;
    joined = joining == Joining::kAll || !estimated ||
             together * int64_t{4} <= (int64_t{count} + other) * kPairShareOf4;
  }
  const bool first_joined = __shfl_xor_sync(device::kFullWarp, int{joined}, 1) != 0;
  if (second && first_joined) return RowBlockTiles::joined();
  return joined ? RowBlockTiles::pair(together) : RowBlockTiles{count};
}

/// Grid: chunks of row blocks x batch * num_heads_q, row blocks fastest.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocksPerSm)
    count_row_block_tiles_kernel(const HeadKeys* heads, const __grid_constant__ Sequences sequences,
                                 int32_t num_heads_q, int32_t num_chunks, Joining joining,
                                 int32_t* tiles) {
  auto& storage = arch::shared_storage<typename Traits::SharedStorage>();
  const int32_t head_idx = static_cast<int32_t>(blockIdx.x) / num_chunks;
  const int32_t first = static_cast<int32_t>(blockIdx.x) % num_chunks * Traits::kThreads;
  const HeadKeys& head = heads[head_idx];
  const Lengths lengths = sequences.at(head_idx / num_heads_q).lengths;
  const int32_t count = device::count_tiles_of_row_blocks<typename Traits::Group>(
      storage.row_blocks, head, lengths, first);
  const int32_t row_block = first + static_cast<int32_t>(threadIdx.x);
  RowBlockTiles result{count};
  if (joining != Joining::kNone) {
    result = join_row_blocks(head, lengths, row_block, count, joining);
  }
  if (row_block < lengths.row_blocks()) {
    tiles[int64_t{head_idx} * sequences.max.row_blocks() + row_block] = result.code;
  }
}

/// The weight of an item in the order: larger the longer it takes, 0 if it is joined to another.
MINF_HOST_DEVICE inline int32_t item_weight(RowBlockTiles tiles) {
  if (tiles.is_joined()) return 0;
  return min_of((tiles.is_pair() ? 2 : 1) * tiles.count() + 1, (1 << 16) - 1);
}

MINF_HOST_DEVICE inline int32_t max_weight(const Lengths& lengths) {
  return item_weight(RowBlockTiles::pair(max_row_block_tiles(lengths)));
}

/// 2 blocks on an SM: 16 items per thread stay in registers (at most 128) between ranking and
/// placing; 11 KiB of shared memory.
struct SortTraits {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerSm = 2;
  static constexpr int kDigitBits = 8;
  static constexpr int kDigits = 1 << kDigitBits;
  static constexpr int kItemsPerThread = 16;
  static constexpr int kTile = kThreads * kItemsPerThread;
  /// Every block reads the histograms of all blocks: 256 KiB at most with this many.
  static constexpr int kMaxBlocks = 256;
  using Group = device::BlockGroup<kThreads>;
  static_assert(kDigits == kThreads);  // Thread d serves digit d.

  struct SharedStorage {
    device::ScanStorage<Group, device::Sum<int64_t>> scan;
    int32_t tally[kDigits];
    int64_t tile_base[kDigits];  // Where the tile's items of each digit go.
    int32_t warp_counts[Group::kWarps]
                       [kDigits];  // Counts of the warp's items; then, of the warps before it.
  };
};

/// One pass. Items are those of `from`, or, if that is null, all items in the order of ties.
struct SortParams {
  const WorkItem* from;
  WorkItem* to;
  const int32_t* tiles;
  int32_t* tallies;  // [blocks, kDigits]
  int64_t num_items;
  int64_t items_per_block;  // A multiple of kTile.
  int32_t group_size;
  int32_t row_blocks;
  int32_t max_weight;
  int weight_bits;        // Bits of max_weight.
  int32_t section_heads;  // Query heads of a section.
  int32_t last_section;
  int32_t digit_shift;
};

__device__ inline WorkItem item_at(const SortParams& params, int64_t idx) {
  if (params.from != nullptr) return params.from[idx];
  const int64_t row = idx / params.group_size;  // Index of (batch, KV head, row block).
  const int64_t kv_head = row / params.row_blocks;
  return {.head = static_cast<int32_t>(kv_head * params.group_size + idx % params.group_size),
          .row_block = static_cast<int32_t>(row % params.row_blocks)};
}

/// Items [begin, end) are a block's part.
struct ItemRange {
  int64_t begin;
  int64_t end;
};

__device__ inline ItemRange block_items(const SortParams& params) {
  const int64_t begin = blockIdx.x * params.items_per_block;
  const int64_t left = params.num_items - begin;
  return {begin, begin + (left < params.items_per_block ? left : params.items_per_block)};
}

/// A digit of the key: section, then descending weights. Joined items come last of all: they are
/// the only items of weight 0 in the last section.
__device__ inline int32_t digit_of(const SortParams& params, const WorkItem& item) {
  const RowBlockTiles tiles{params.tiles[int64_t{item.head} * params.row_blocks + item.row_block]};
  const int32_t weight = min_of(item_weight(tiles), params.max_weight);
  const int32_t section =
      tiles.is_joined() ? params.last_section : item.head / params.section_heads;
  const int32_t key = section << params.weight_bits | (params.max_weight - weight);
  return key >> params.digit_shift & (SortTraits::kDigits - 1);
}

/// Grid: blocks of items_per_block items.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads)
    tally_items_kernel(const __grid_constant__ SortParams params) {
  auto& storage = arch::shared_storage<typename Traits::SharedStorage>();
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const auto [begin, end] = block_items(params);
  storage.tally[thread] = 0;
  __syncthreads();  // The histogram is zero.
  for (int64_t idx = begin + thread; idx < end; idx += Traits::kThreads) {
    atomicAdd(&storage.tally[digit_of(params, item_at(params, idx))], 1);
  }
  __syncthreads();  // It is complete.
  params.tallies[blockIdx.x * int64_t{Traits::kDigits} + thread] = storage.tally[thread];
}

/// Where this block's first item of digit `thread` goes.
template <typename Traits>
__device__ inline int64_t first_place(typename Traits::SharedStorage& storage,
                                      const SortParams& params) {
  int64_t before = 0, total = 0;
#pragma unroll 8
  for (unsigned block = 0; block < gridDim.x; ++block) {
    const int32_t tally = params.tallies[block * int64_t{Traits::kDigits} + threadIdx.x];
    if (block < blockIdx.x) before += tally;
    total += tally;
  }
  return before + device::exclusive_scan<typename Traits::Group>(storage.scan, total).exclusive;
}

/// A thread's items of a tile: warp * 512 + step * 32 + lane is their order.
template <typename Traits>
struct TileItems {
  WorkItem item[Traits::kItemsPerThread];
  int32_t digit[Traits::kItemsPerThread];  // -1: no item.
  int32_t rank[Traits::kItemsPerThread];   // Rank among the warp's items of this digit.

  __device__ void load(const SortParams& params, int64_t tile_begin, int64_t end) {
    const int64_t first =
        tile_begin + Traits::Group::warp() * (Traits::kItemsPerThread * 32) + device::lane_index();
#pragma unroll
    for (int step = 0; step < Traits::kItemsPerThread; ++step) {
      const int64_t idx = first + step * 32;
      digit[step] = -1;
      if (idx >= end) continue;
      item[step] = item_at(params, idx);
      digit[step] = digit_of(params, item[step]);
    }
  }

  /// Ranks the warp's items, counting them in its zeroed `counts`.
  __device__ void rank_in_warp(int32_t* counts) {
#pragma unroll
    for (int step = 0; step < Traits::kItemsPerThread; ++step) {
      const uint32_t peers = __match_any_sync(device::kFullWarp, digit[step]);
      const bool exists = digit[step] >= 0;
      const int32_t below = __popc(peers & device::lanes_below());
      rank[step] = exists ? counts[digit[step]] + below : 0;
      __syncwarp(device::kFullWarp);  // All have read the count.
      if (exists && below == 0) counts[digit[step]] += __popc(peers);
      __syncwarp(device::kFullWarp);  // The count is updated.
    }
  }
};

/// Same grid.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocksPerSm)
    place_items_kernel(const __grid_constant__ SortParams params) {
  auto& storage = arch::shared_storage<typename Traits::SharedStorage>();
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const auto [begin, end] = block_items(params);
  int64_t place = first_place<Traits>(storage, params);

  for (int64_t tile = begin; tile < end; tile += Traits::kTile) {
    // 1. Each warp ranks its items.
    int32_t* const counts = storage.warp_counts[Traits::Group::warp()];
    for (int digit = device::lane_index(); digit < Traits::kDigits; digit += 32) counts[digit] = 0;
    __syncwarp(device::kFullWarp);  // The warp's counts are zero.
    TileItems<Traits> items;
    items.load(params, tile, end);
    items.rank_in_warp(counts);
    __syncthreads();  // All counts are complete.

    // 2. Thread d places digit d: warp after warp, after the tiles before.
    storage.tile_base[thread] = place;
    int32_t before = 0;
#pragma unroll
    for (int warp = 0; warp < Traits::Group::kWarps; ++warp) {
      const int32_t count = storage.warp_counts[warp][thread];
      storage.warp_counts[warp][thread] = before;
      before += count;
    }
    place += before;
    __syncthreads();  // All places are known.

    // 3. Items go where their digit, warp and rank say.
#pragma unroll
    for (int step = 0; step < Traits::kItemsPerThread; ++step) {
      const int32_t digit = items.digit[step];
      if (digit < 0) continue;
      params.to[storage.tile_base[digit] + counts[digit] + items.rank[step]] = items.item[step];
    }
    __syncthreads();  // The places are read: the next tile may write its own.
  }
}

}  // namespace minference::cuda
