// What a head attends: its pattern, and the index lists that estimation and planning gave it.
// Stage 2 writes these, stage 3 reads them; kernels see only the tiles of key_tiles.h.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "minference/minference.h"

namespace minference {

/// Query rows of a row block and keys of a key block or tile, on every backend: the granularity of
/// the index format. A kernel may compute in larger tiles; it attends the same keys.
inline constexpr int kBlock = MINF_BLOCK;

/// How a key set is written down. This is all that the walks of key_tiles.h, and so the kernels,
/// know of a pattern: which estimator filled the lists is core/estimator.h's business.
enum class Form : int32_t {
  kShape,   // Sink keys and a window, and rows at the end of the call that see everything.
  kRuns,    // Runs of distances, and columns.
  kBlocks,  // A list of key blocks for each row block.
};

/// A value of dense_rows: every row of the call.
inline constexpr int32_t kAllRows = INT32_MAX;

/// Distances [lo, hi) from end_r: row block r attends keys [end_r - hi, end_r - lo).
struct Run {
  int32_t lo;
  int32_t hi;
};

/// The key set of one (batch, query head), for all its row blocks. Borrows its lists.
struct HeadKeys {
  Form form = Form::kShape;
  int32_t sink = 0;        // kShape: the first keys, seen by every row. Tokens.
  int32_t window = 0;      // kShape: the last keys, the row's own included. Tokens.
  int32_t dense_rows = 0;  // kShape: rows at the end of the call that see all keys up to their own.

  const Run* runs = nullptr;         // kRuns: ascending, disjoint, widths multiples of 64.
  const int32_t* columns = nullptr;  // kRuns: ascending, no duplicates.
  int32_t num_runs = 0;
  int32_t num_columns = 0;

  const int32_t* blocks = nullptr;  // kBlocks: [row_blocks, max_blocks], ascending, -1 at the end.
  int64_t block_stride = 0;         // Entries between the lists of neighbouring row blocks.
  int32_t max_blocks = 0;

  /// In a pattern without lists: the head of the index tensors that has them. If one pattern serves
  /// all heads, each head still has its own lists.
  int32_t list_head = 0;
};

/// Lengths of one call. Positions count keys: row i is at i + seqlen_k - seqlen_q.
struct Lengths {
  int32_t seqlen_q = 0;
  int32_t seqlen_k = 0;

  MINF_HOST_DEVICE int32_t offset() const { return seqlen_k - seqlen_q; }
  MINF_HOST_DEVICE int32_t row_blocks() const { return (seqlen_q + kBlock - 1) / kBlock; }
  MINF_HOST_DEVICE int32_t key_blocks() const { return (seqlen_k + kBlock - 1) / kBlock; }
};

/// One row block: the positions of its rows, and the `end_r` that distances count from.
struct RowBlock {
  int32_t index = 0;
  int32_t first_position = 0;  // Of its first row.
  int32_t last_position = 0;   // Of its last existing row.
  int32_t end = 0;  // first_position + 64, past the sequence's end in a ragged last block.

  RowBlock() = default;
  MINF_HOST_DEVICE RowBlock(const Lengths& lengths, int32_t row_block)
      : index(row_block),
        first_position(row_block * kBlock + lengths.offset()),
        last_position(first_position + kBlock - 1),
        end(first_position + kBlock) {
    if (last_position >= lengths.seqlen_k) last_position = lengths.seqlen_k - 1;
  }
};

}  // namespace minference
