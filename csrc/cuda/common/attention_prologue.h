// Stage 3, the host side: what the attention launchers of all backends begin with.
//
//     prepare_head_keys    patterns and index lists to key sets      head_keys.h
//     build_work_table     items, longest first                      work_table.h
//     memset               of the counter from which blocks draw items
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/backend.h"
#include "core/workspace.h"
#include "cuda/common/work_table.h"

namespace minference::cuda {

/// Work memory that attention takes on every backend, before a backend's own.
struct AttentionMemory {
  /// Takes nothing but counts where the allocator does.
  AttentionMemory(WorkspaceAllocator& allocator, const Shape& shape);

  HeadKeys* heads;  // [batch * num_heads_q]
  Workspace table;
  unsigned long long* next_item;
};

/// Enqueues the writing of all of `memory`. @throws Error{MINF_ERROR_LAUNCH_FAILED}
WorkTable prepare_attention(const AttentionArgs& args, const AttentionMemory& memory,
                            Joining joining, cudaStream_t stream);

}  // namespace minference::cuda
