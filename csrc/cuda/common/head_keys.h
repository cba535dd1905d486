// The key sets of all heads in device memory: patterns, which the host knows, with index lists,
// which only the device may look at. The compute kernel, the work table and tile counts read them.
//
// Lists are untrusted. A key set holds the valid start of each: columns up to the first that is not
// in [0, seqlen_k) or not above the one before; runs up to the first that is not as PlanArgs' are
// (lo at or after the end of the one before, lo < seqlen_k, whole blocks), at most run_count and
// what the tensor holds. Block lists need no look: KeyTiles ends them at the first block that is
// not among a row block's keys.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "core/backend.h"
#include "cuda/arch/emulation.h"

namespace minference::cuda {

/// Writes heads[batch * num_heads_q] in device memory; `heads` borrows the lists. patterns: one per
/// query head or one for all, in host memory, without lists; they go over by value. Only enqueues:
/// one kernel for every 160 patterns, which reads each list once (20 us or less for 32 heads with
/// (1000, 6096); most of it latency).
/// @throws Error{MINF_ERROR_LAUNCH_FAILED}
void prepare_head_keys(const Shape& shape, std::span<const HeadKeys> patterns,
                       const IndexLists& index, HeadKeys* heads, cudaStream_t stream);

}  // namespace minference::cuda
