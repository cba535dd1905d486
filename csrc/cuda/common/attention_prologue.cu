// See attention_prologue.h.
// SPDX-License-Identifier: Apache-2.0
#include <cstddef>

#include "cuda/check.h"
#include "cuda/common/attention_prologue.h"
#include "cuda/common/head_keys.h"

namespace minference::cuda {

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
