// The stages that all CUDA backends share, as their tables list them. Arguments: core/backend.h.
//
// All stages, these and the backends' own, only enqueue on executor.stream: no allocation, no
// synchronisation, nothing that a graph cannot replay. Host arrays in the arguments reach the
// device by value, in kernel parameters.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "core/backend.h"

namespace minference::cuda {

void plan_vertical_slash(const PlanArgs& args, const Executor& executor);
void count_key_tiles(const CountTilesArgs& args, const Executor& executor);
void fill_lists(std::span<int32_t> lists, const Executor& executor);
void merge_attention(const MergeArgs& args, const Executor& executor);

}  // namespace minference::cuda
