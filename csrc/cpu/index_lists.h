// Index lists in host memory: untrusted entries are checked, and become the key sets that host code
// walks. (Lists in device memory are never read here: looking would synchronise.)
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/pattern.h"

namespace minference::cpu {

/// Which list of an index tensor, for messages.
struct ListName {
  const char* tensor;
  int64_t batch;
  int64_t head;
  int64_t row_block = -1;  // Of block_index only.

  std::string text() const;
};

/// Checks that entries ascend strictly within [0, limit) and only -1 follows; returns their number.
/// @throws Error{MINF_ERROR_INVALID_ARGUMENT}
int32_t checked_count(const ListName& name, std::span<const int32_t> entries, int64_t limit);

/// Key sets of all (batch, query head). patterns: one per query head or one for all, without lists.
/// Every entry in use is checked. @throws Error{MINF_ERROR_INVALID_ARGUMENT}
std::vector<HeadKeys> checked_head_keys(const IndexLists& index, std::span<const HeadKeys> patterns,
                                        const Shape& shape);

/// Writes the number of 64-row x 64-key tiles of each head, [batch * num_heads_q].
void write_tiles(std::span<const HeadKeys> heads, const Shape& shape,
                 const HeadLists<int64_t>& tiles, const Executor& executor);

}  // namespace minference::cpu
