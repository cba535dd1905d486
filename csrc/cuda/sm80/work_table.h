// What stage 3 computes, in the order in which blocks should take it: one item per (batch, query
// head, row block), those with the most key tiles first, so that no long item starts last.
//
// Memory: 12 bytes per item where a row block has at most 255 tiles (seqlen_k to about 8K), else
// 20, plus at most 256 KiB: 10.5 MB for 32 heads of 1M tokens. Time there, by bytes and operations
// estimated for an H200: 0.1 ms to count, most of it the columns' searches, and 0.05 ms to order.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/backend.h"
#include "cuda/arch/emulation.h"

namespace minference::sm80 {

struct alignas(8) WorkItem {
  int32_t head;  // batch * num_heads_q + query head: index of its HeadKeys.
  int32_t row_block;
};

/// In device memory, within the workspace. For calls without items the pointers may be null.
struct WorkTable {
  const WorkItem* items;     // [num_items], longest first.
  const int32_t* num_tiles;  // [batch * num_heads_q, row_blocks]: what KeyTiles yields for each.
  int64_t num_items;         // batch * num_heads_q * row_blocks.
};

/// Bytes of work memory that build_work_table() needs.
std::size_t work_table_bytes(const Shape& shape);

/// Counts and orders the items of `heads` (device memory, from prepare_head_keys). Among items with
/// as many tiles the order is (batch, KV head, row block, query head of the group), so that blocks
/// that run together share K and V. Only enqueues on `stream`: 1 kernel, and 2 for every 8 bits of
/// the largest count that the shape admits (4 at 128K and 1M). Deterministic.
/// @throws Error{MINF_ERROR_LAUNCH_FAILED}
WorkTable build_work_table(const Shape& shape, const HeadKeys* heads, Workspace workspace,
                           cudaStream_t stream);

}  // namespace minference::sm80
