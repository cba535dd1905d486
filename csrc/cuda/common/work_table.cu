// The work table: memory and launches; and the prologue of attention launchers: see
// attention_launch.h.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cstddef>
#include <limits>

#include "core/check.h"
#include "core/host_device.h"
#include "core/key_tiles.h"
#include "core/workspace.h"
#include "cuda/arch/launch.h"
#include "cuda/check.h"
#include "cuda/common/attention_launch.h"
#include "cuda/common/work_table_kernels.h"

namespace minference::cuda {
namespace {

/// How a call's items are sorted, which depends on its shape only.
struct SortPlan {
  int64_t num_items;
  int64_t items_per_block;
  int64_t num_blocks;
  int weight_bits;
  int32_t section_heads;  // Query heads of a section.
  int32_t num_sections;
  int num_passes;
};

constexpr int kMaxSectionBits = 8;

/// KV heads of a section, for a shape that has items. head_dim_v is not known when memory is asked
/// for, so this assumes head_dim.
int64_t section_kv_heads(const Shape& shape, const SectionLimits& limits) {
  constexpr int64_t kElementBytes = 2;
  const int64_t num_heads = int64_t{shape.batch} * shape.num_heads_kv;
  const int64_t head_bytes = 2 * kElementBytes * shape.head_dim * shape.lengths.seqlen_k;
  const int64_t head_tiles = int64_t{shape.group_size()} * ceil_div(shape.lengths.row_blocks(), 2);
  const int64_t fit = limits.bytes / std::max<int64_t>(head_bytes, 1);
  const int64_t enough = ceil_div(limits.min_row_tiles, head_tiles);
  const int64_t few_sections = ceil_div(num_heads, int64_t{1} << kMaxSectionBits);  // 1 or more.
  return std::min(std::max({fit, enough, few_sections}), num_heads);
}

SortPlan make_sort_plan(const Shape& shape, const SectionLimits& limits) {
  const int64_t num_items = int64_t{shape.batch} * shape.num_heads_q * shape.lengths.row_blocks();
  if (num_items == 0) return {};
  const int64_t num_tiles = ceil_div(num_items, SortTraits::kTile);
  const int64_t tiles_per_block = ceil_div(num_tiles, SortTraits::kMaxBlocks);
  const int64_t kv_heads = section_kv_heads(shape, limits);
  const int64_t num_sections = ceil_div(int64_t{shape.batch} * shape.num_heads_kv, kv_heads);
  const int weight_bits = std::bit_width(static_cast<unsigned>(max_weight(shape.lengths)));
  const int section_bits = std::bit_width(static_cast<unsigned>(num_sections - 1));
  return {.num_items = num_items,
          .items_per_block = tiles_per_block * SortTraits::kTile,
          .num_blocks = ceil_div(num_tiles, tiles_per_block),
          .weight_bits = weight_bits,
          .section_heads = static_cast<int32_t>(kv_heads * shape.group_size()),
          .num_sections = static_cast<int32_t>(num_sections),
          .num_passes = ceil_div(weight_bits + section_bits, SortTraits::kDigitBits)};
}

struct TableMemory {
  int32_t* tiles;
  WorkItem* items;
  WorkItem* other;  // Written by passes that an odd number of passes follows.
  int32_t* tallies;
};

TableMemory take_memory(WorkspaceAllocator& allocator, const SortPlan& plan) {
  const auto num_items = static_cast<std::size_t>(plan.num_items);
  return {
      .tiles = allocator.take<int32_t>(num_items).data(),
      .items = allocator.take<WorkItem>(num_items).data(),
      .other = allocator.take<WorkItem>(plan.num_passes > 1 ? num_items : 0).data(),
      .tallies =
          allocator.take<int32_t>(static_cast<std::size_t>(plan.num_blocks) * SortTraits::kDigits)
              .data()};
}

void count_items(const Shape& shape, const HeadKeys* heads, Joining joining, int32_t* tiles,
                 cudaStream_t stream) {
  using Traits = CountRowsTraits;
  const int32_t num_chunks = (shape.lengths.row_blocks() + Traits::kThreads - 1) / Traits::kThreads;
  const int64_t num_blocks = int64_t{shape.batch} * shape.num_heads_q * num_chunks;
  MINF_ASSERT(num_blocks <= std::numeric_limits<int32_t>::max());
  arch::launch("count_row_block_tiles", &count_row_block_tiles_kernel<Traits>,
               {dim3(static_cast<unsigned>(num_blocks)), dim3(Traits::kThreads),
                sizeof(Traits::SharedStorage)},
               stream, heads, shape.sequences(), shape.num_heads_q, num_chunks, joining, tiles);
}

void sort_items(const Shape& shape, const SortPlan& plan, const TableMemory& memory,
                cudaStream_t stream) {
  SortParams params{.from = nullptr,
                    .to = nullptr,
                    .tiles = memory.tiles,
                    .tallies = memory.tallies,
                    .num_items = plan.num_items,
                    .items_per_block = plan.items_per_block,
                    .group_size = shape.group_size(),
                    .row_blocks = shape.lengths.row_blocks(),
                    .max_weight = max_weight(shape.lengths),
                    .weight_bits = plan.weight_bits,
                    .section_heads = plan.section_heads,
                    .last_section = plan.num_sections - 1,
                    .digit_shift = 0};
  const arch::LaunchShape grid{dim3(static_cast<unsigned>(plan.num_blocks)),
                               dim3(SortTraits::kThreads), sizeof(SortTraits::SharedStorage)};
  for (int pass = 0; pass < plan.num_passes; ++pass) {
    const int passes_after = plan.num_passes - 1 - pass;
    params.to = passes_after % 2 == 0 ? memory.items : memory.other;
    params.digit_shift = pass * SortTraits::kDigitBits;
    arch::launch("tally_items", &tally_items_kernel<SortTraits>, grid, stream, params);
    arch::launch("place_items", &place_items_kernel<SortTraits>, grid, stream, params);
    params.from = params.to;
  }
}

}  // namespace

std::size_t work_table_bytes(const Shape& shape, const SectionLimits& limits) {
  WorkspaceAllocator allocator;
  take_memory(allocator, make_sort_plan(shape, limits));
  return allocator.bytes();
}

WorkTable build_work_table(const Shape& shape, const HeadKeys* heads, Joining joining,
                           Workspace workspace, cudaStream_t stream, const SectionLimits& limits) {
  const SortPlan plan = make_sort_plan(shape, limits);
  if (plan.num_items == 0) return {};
  WorkspaceAllocator allocator(workspace);
  const TableMemory memory = take_memory(allocator, plan);
  count_items(shape, heads, joining, memory.tiles, stream);
  sort_items(shape, plan, memory, stream);
  return {.items = memory.items, .tiles = memory.tiles, .num_items = plan.num_items};
}

// ---- Prologue -----------------------------------------------------------------------------------

AttentionMemory::AttentionMemory(WorkspaceAllocator& allocator, const Shape& shape)
    : heads(allocator
                .take<HeadKeys>(static_cast<std::size_t>(shape.batch) *
                                static_cast<std::size_t>(shape.num_heads_q))
                .data()),
      table(allocator.take<std::byte>(work_table_bytes(shape))),
      next_item(allocator.take<unsigned long long>(1).data()) {}

WorkTable prepare_attention(const AttentionArgs& args, const AttentionMemory& memory,
                            Joining joining, cudaStream_t stream) {
  prepare_head_keys(args.shape, args.patterns, args.index, memory.heads, stream);
  const WorkTable table = build_work_table(args.shape, memory.heads, joining, memory.table, stream);
  MINF_CUDA(cudaMemsetAsync(memory.next_item, 0, sizeof(*memory.next_item), stream));
  return table;
}

}  // namespace minference::cuda
