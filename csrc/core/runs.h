// Stage 2 of vertical-slash: one head's sorted distances -> runs, independent of the row block.
// Source: the covering of MInference (arXiv:2407.02490, Appendix C.4), which is built there per row
// block. It depends on the row block only through end_r, so one list per head is enough.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "core/pattern.h"

namespace minference {

/// Upper bound on the runs of `num_distances` distances below `seqlen_k`: runs start at distinct
/// distances, and two starts are at least 65 apart (64 wide plus a gap, or they would have merged).
MINF_HOST_DEVICE inline int64_t max_runs(int64_t num_distances, int64_t seqlen_k) {
  const int64_t by_length = (seqlen_k + kBlock) / (kBlock + 1);
  return num_distances < by_length ? num_distances : by_length;
}

/// Raises `hi` until [lo, hi) is a whole number of 64-key blocks.
MINF_HOST_DEVICE inline int32_t round_far_end(int32_t lo, int32_t hi) {
  return lo + (hi - lo + kBlock - 1) / kBlock * kBlock;
}

/// Merges ascending distances into runs, near to far; a negative distance ends the list.
/// `runs` must hold max_runs() entries. Returns how many were written.
///
/// A distance d joins the current run when [d, d + 64) touches or overlaps the run as rounded so
/// far. Rounding again from the run's own lo gives the same result as merging first and rounding
/// afterwards.
MINF_HOST_DEVICE inline int32_t plan_runs(const int32_t* distances, int64_t num_distances,
                                          Run* runs) {
  int32_t count = 0;
  for (int64_t i = 0; i < num_distances && distances[i] >= 0; ++i) {
    const int32_t d = distances[i];
    if (count > 0 && d <= runs[count - 1].hi) {
      Run& run = runs[count - 1];
      if (d + kBlock > run.hi) run.hi = round_far_end(run.lo, d + kBlock);
    } else {
      runs[count++] = {d, d + kBlock};
    }
  }
  return count;
}

}  // namespace minference
