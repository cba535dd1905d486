// The end of stage 1: the largest scores of each row, as ascending indices. The same selection as
// cpu/top_k.h, for rows of any length in device memory.
//
// A radix search for the threshold key, then an ordered compaction: indices come out ascending
// without a sort, and a tie at the threshold goes to the smaller index. Long rows are cut into
// segments of a fixed size, one block each; nothing depends on the device or on timing.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/backend.h"
#include "cuda/arch/emulation.h"

namespace minference::cuda {

/// One row to select from. Pointers are to device memory, aligned for their types.
struct SelectRow {
  const float* scores = nullptr;  // [num_scores], not negative, not NaN, finite.
  int32_t* index = nullptr;       // [size], written whole: ascending indices, then -1.
  int32_t num_forced = 0;         // Entries [0, num_forced) are kept, whatever their scores.
  int32_t size = 0;               // Entries kept at most; num_forced <= size <= num_scores.
  double share = 1;               // In (0, 1]; below 1 a budget by mass, see select_rows().
};

/// Bytes of work memory that select_rows() needs: 24 KiB per row longer than 16K scores (72 KiB
/// with masses) plus 8 bytes per 16K scores; shorter rows need 32 bytes each.
std::size_t select_rows_bytes(std::size_t num_rows, int32_t num_scores, bool by_mass);

/// Writes each row's selection: the forced entries, then the largest other scores, up to `size` in
/// all; of equal scores the smaller index first.
///
/// With share < 1 (read only if `by_mass`) the selection ends as soon as the scores kept, forced
/// ones included, sum to share * (sum of all scores of the row). Sums are in fixed point, in units
/// of 2^-52, so that they have one value in any order. That is exact for scores of at least 2^-29,
/// and needs rows that sum to less than 4096.
///
/// Scores that break these rules select other entries, but nothing is read or written out of
/// bounds. Only enqueues on `stream`: 2 kernels for rows of at most 16K scores, else 6 and a
/// memset. Rows are passed by value, 120 per launch; more rows take further launches.
/// Deterministic. `rows` may be empty and need not outlive the call. `workspace` holds
/// select_rows_bytes(rows.size(), num_scores, by_mass), and is free again once the stream has
/// passed this work.
/// @throws Error{MINF_ERROR_LAUNCH_FAILED}
void select_rows(std::span<const SelectRow> rows, int32_t num_scores, bool by_mass,
                 Workspace workspace, cudaStream_t stream);

}  // namespace minference::cuda
