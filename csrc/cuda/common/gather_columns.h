// Stage 3 with TMA: the selected keys and values of each vertical-slash head, gathered once, so
// that TMA can load its columns as tiles like any others.
//
// The producer warpgroup does not gather row by row (cp.async) for each row block, because every
// row block of a head attends the same columns. Gathered once, 1000 columns of 32 heads are 16 MB
// written and read, 0.01 ms, and each row tile then loads a tile with 4 instructions of one thread.
// Gathered for each row tile, a tile is 2048 copies of 16 bytes, 16 for every thread of the
// producer, with a list read before and a proxy fence after. That would save the 16 MB and a
// launch: under 1 % of a call from 32K keys on (arithmetic, docs/hopper.md).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/backend.h"
#include "cuda/arch/emulation.h"

namespace minference::cuda {

/// Rows of K, or of V, of each column of each head, in the order of its list: [batch * num_heads_q,
/// num_columns, dims]. Rows past a head's last column, up to a whole tile, are zeros; later rows
/// are not written.
struct GatheredRows {
  void* data;  // 16-byte aligned.
  int32_t num_columns;
  int32_t dims;
};

inline constexpr std::size_t gathered_bytes(const Shape& shape, int64_t num_columns, int64_t dims) {
  constexpr std::size_t kElementBytes = 2;
  return static_cast<std::size_t>(shape.batch) * static_cast<std::size_t>(shape.num_heads_q) *
         static_cast<std::size_t>(num_columns) * static_cast<std::size_t>(dims) * kElementBytes;
}

/// Gathers for all vertical-slash heads. heads: from prepare_head_keys(). Only enqueues: one
/// kernel, or none without columns. @throws Error{MINF_ERROR_LAUNCH_FAILED}
void gather_columns(const AttentionArgs& args, const HeadKeys* heads, const GatheredRows& keys,
                    const GatheredRows& values, cudaStream_t stream);

}  // namespace minference::cuda
