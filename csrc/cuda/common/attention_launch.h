// Stage 3, the host side that all backends share: key sets of heads, the work table, the prologue
// of every attention launcher, and the combination of splits.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/backend.h"
#include "core/host_device.h"
#include "core/workspace.h"
#include "cuda/arch/emulation.h"

namespace minference::cuda {

/// Limits that only tests change, to reach with small sizes what large ones do.
struct AttentionLimits {
  int32_t resident_blocks = 0;  // Thread blocks that run at a time; 0: as many as the device holds.
};

// ---- Key sets -----------------------------------------------------------------------------------
//
// The key sets of all heads in device memory join patterns, which the host knows, with index lists,
// which only the device may read. The attention kernel, the work table and tile counts read them.
//
// Lists are untrusted. A key set holds the valid start of each. Columns end at the first that is
// not in [0, seqlen_k) or not above the previous one. Runs end at the first that breaks the rules
// of PlanArgs (lo at or after the end of the previous run, lo < seqlen_k, whole blocks), at
// run_count or at the tensor's size. Block lists need no check: KeyTiles ends them at the first
// block that is not among a row block's keys.

/// Writes heads[batch * num_heads_q] in device memory; `heads` borrows the lists. patterns: one per
/// query head or one for all, in host memory, without lists; they are passed by value. Only
/// enqueues: one kernel for every 160 patterns, which reads each list once (20 us or less for 32
/// heads with (1000, 6096); most of it latency).
/// @throws Error{MINF_ERROR_LAUNCH_FAILED}
void prepare_head_keys(const Shape& shape, std::span<const HeadKeys> patterns,
                       const IndexLists& index, HeadKeys* heads, cudaStream_t stream);

// ---- Work table ---------------------------------------------------------------------------------
//
// The work table is the tile scheduler: what stage 3 computes, in the order in which blocks should
// take it. An item is one (batch, query head, row block), or two neighbouring row blocks that share
// enough of their key tiles. Items with the most tiles come first, so that no long item starts
// last. If the keys and values of all heads exceed what L2 keeps, items come in sections of some KV
// heads, each longest first.
//
// Memory: 12 bytes per item if weight and section have at most 8 bits (seqlen_k to about 4K), else
// 20, plus at most 256 KiB: 10.5 MB for 32 heads of 1M tokens. Its time, estimated from bytes and
// operations for an H200: 0.1 ms to count, most of it for searching columns, and 0.08 ms to order.
//
// Source: FlashAttention-3 (hopper/tile_scheduler.hpp): longest first within as many heads as L2
// holds.

struct alignas(8) WorkItem {
  int32_t head;  // batch * num_heads_q + query head, the index of its HeadKeys.
  int32_t row_block;
};

/// Key tiles of the item that begins at a row block.
struct RowBlockTiles {
  static constexpr int32_t kPairBit = 1 << 30;
  int32_t code;

  MINF_HOST_DEVICE static RowBlockTiles joined() { return {-1}; }
  MINF_HOST_DEVICE static RowBlockTiles pair(int32_t count) { return {count | kPairBit}; }

  /// The row block belongs to the item of the previous one.
  MINF_HOST_DEVICE bool is_joined() const { return code < 0; }
  /// The item has the next row block too. Its count, the tiles that either attends, is an estimate.
  MINF_HOST_DEVICE bool is_pair() const { return code >= 0 && (code & kPairBit) != 0; }
  MINF_HOST_DEVICE int32_t count() const { return is_joined() ? 0 : code & ~kPairBit; }
};

/// Which neighbouring row blocks form one item.
enum class Joining : int32_t {
  kNone,
  kWhereShared,  // As kPairShareOf4 says.
  kAll,          // Row blocks 2 i and 2 i + 1, whatever they attend.
};

/// Joining::kWhereShared: two row blocks are joined if together they attend no more than this share
/// of the tiles that they attend separately.
///
/// Joined or not, a tile of 64 keys is 32 KiB of K and V at 128 dims (bf16), which all blocks of a
/// multiprocessor draw from L2: 1365 cycles at 24 bytes a cycle (5.5 TB/s over 132 multiprocessors
/// at 1.75 GHz), 864 on sm_80 (5120 bytes a cycle over 108, at four fifths). Its products for one
/// row block take 777 cycles at 2700 FLOP a cycle (sm_90), 1024 on sm_80 (2048); for two joined row
/// blocks the tile takes 1792 cycles of shared memory (attention_traits.h). So separately, sm_90
/// waits for L2; joined, a shared tile costs the same load for twice the products. A tile that only
/// one of the two attends idles half of the block's warps, which the multiprocessor's other block
/// makes up for in part. So a tile weighs 1 when joined and 3/4 when separate.
inline constexpr int32_t kPairShareOf4 = 3;

/// How many KV heads form a section: as many as have `bytes` of keys and values together, but at
/// least one, and enough for `min_row_tiles` pairs of row blocks, so that a section occupies the
/// device and its last items are short in comparison.
///
/// In one section of 32 heads of 128K tokens, blocks that run together would stream the keys and
/// values of all eight KV heads, 537 MB: a tile stays in L2 for the others only while they keep in
/// step to within 12,000 keys. In sections of one KV head they may be 100,000 keys apart.
struct SectionLimits {
  int64_t bytes = int64_t{32} << 20;  // An H200 has 50 MB of L2 in two halves, an A100 has 40.
  int64_t min_row_tiles = 1024;
};

/// A table in device memory, within the workspace. Without items the pointers may be null.
struct WorkTable {
  const WorkItem* items;  // [num_items], in the order above; row blocks joined to others come last.
  const int32_t* tiles;   // [batch * num_heads_q, row_blocks]: RowBlockTiles::code.
  int64_t num_items;      // batch * num_heads_q * row_blocks.
};

/// Bytes of work memory that build_work_table() needs.
std::size_t work_table_bytes(const Shape& shape, const SectionLimits& limits = {});

/// Counts and orders the items of `heads` (device memory, from prepare_head_keys). The count of an
/// item that is not joined is what KeyTiles yields. A pair counts twice its tiles; from 2^15 tiles
/// on, counts are treated as equal. Items of a section with equal counts are ordered by (batch, KV
/// head, row block, query head of the group), so that blocks that run together share K and V. Only
/// enqueues on `stream`: 1 kernel, and 2 for every 8 bits of the largest weight that the shape
/// admits (at most 16 bits) and of the number of sections (at most 8). Deterministic.
/// @throws Error{MINF_ERROR_LAUNCH_FAILED}
WorkTable build_work_table(const Shape& shape, const HeadKeys* heads, Joining joining,
                           Workspace workspace, cudaStream_t stream,
                           const SectionLimits& limits = {});

// ---- Prologue -----------------------------------------------------------------------------------
//
// The attention launchers of all backends begin with:
//
//     prepare_head_keys    patterns and index lists to key sets
//     build_work_table     items, longest first
//     memset               the counter from which blocks draw items

/// Work memory that attention takes on every backend, ahead of the backend's own.
struct AttentionMemory {
  /// Only counts bytes if the allocator does.
  AttentionMemory(WorkspaceAllocator& allocator, const Shape& shape);

  HeadKeys* heads;  // [batch * num_heads_q]
  Workspace table;
  unsigned long long* next_item;
};

/// Enqueues what writes all of `memory`. @throws Error{MINF_ERROR_LAUNCH_FAILED}
WorkTable prepare_attention(const AttentionArgs& args, const AttentionMemory& memory,
                            Joining joining, cudaStream_t stream);

// ---- Splits -------------------------------------------------------------------------------------

/// Results of splits (parts of the keys), [num_splits][batch * num_heads_q][seqlen_q], before they
/// are combined.
struct PartialResults {
  float* out;   // [...][dim_v]
  float* lse2;  // log2 of the sum of exponentials; -inf: no key.
  int32_t dim_v;
};

struct CombineParams {
  Tokens out;
  RowValues lse;
  Lengths lengths;
  int32_t num_heads_q;
  int32_t head_dim_v;
  int32_t num_splits;         // Number of parts of the keys.
  int32_t num_partial_heads;  // batch * num_heads_q
  PartialResults partial;
};

/// Enqueues the combination of partial results into out and lse: one kernel.
void combine_splits(const CombineParams& params, DType dtype, cudaStream_t stream);

}  // namespace minference::cuda
