// The stages of the sm80 backend, as its table lists them. Arguments: core/backend.h.
//
// All only enqueue on executor.stream: no allocation, no synchronisation, nothing that a graph
// cannot replay. Host arrays in the arguments reach the device by value, in kernel parameters.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/backend.h"

namespace minference::sm80 {

std::size_t estimate_vertical_slash_bytes(const EstimateVerticalSlashArgs& args, const Executor&);
void estimate_vertical_slash(const EstimateVerticalSlashArgs& args, Workspace workspace,
                             const Executor& executor);

std::size_t estimate_block_sparse_bytes(const EstimateBlockSparseArgs& args, const Executor&);
void estimate_block_sparse(const EstimateBlockSparseArgs& args, Workspace workspace,
                           const Executor& executor);

void plan_vertical_slash(const PlanArgs& args, const Executor& executor);
void count_key_tiles(const CountTilesArgs& args, const Executor& executor);
void fill_lists(std::span<int32_t> lists, const Executor& executor);

std::size_t attention_bytes(const AttentionArgs& args, const Executor& executor);
void attention(const AttentionArgs& args, Workspace workspace, const Executor& executor);
void merge_attention(const MergeArgs& args, const Executor& executor);

}  // namespace minference::sm80
