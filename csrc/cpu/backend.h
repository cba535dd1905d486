// The CPU backend's table: the one symbol of this folder that others may use.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

#include "core/backend.h"

namespace minference::cpu {

const Backend& backend();

/// One instruction set the backend was built for.
struct IsaInfo {
  const char* name;
  const char* unavailable_reason;  // Empty where this machine has it.
  bool selected;                   // Serves the next call.
};

/// Best first. Index i of the returned count.
int isa_count();
IsaInfo isa_info(int isa);

/// Forces an instruction set for the process; empty restores the best available one.
/// @throws Error{kUnsupported} where this machine lacks it, {kInvalidArgument} for an unknown name.
void force_isa(std::string_view name);

/// parallel_for of the library's own pool, for callers that bring none. The context is unused.
void pool_parallel_for(int64_t num_tasks, minf_task task, void* task_context, void* context);

/// Processors this process may run on (affinity mask), at least 1.
int32_t available_threads();

}  // namespace minference::cpu
