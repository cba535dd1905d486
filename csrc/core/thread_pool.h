// The library's own threads, for callers that bring no parallel_for.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "minference/minference.h"

namespace minference {

/// parallel_for of the library's own pool. The context is unused.
void pool_parallel_for(int64_t num_tasks, minf_task task, void* task_context, void* context);

/// Processors this process may run on (affinity mask), at least 1.
int32_t available_threads();

}  // namespace minference
