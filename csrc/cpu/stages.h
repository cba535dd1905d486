// The stages of the CPU backend, one file each; backend.cpp puts them into the table.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/backend.h"

namespace minference::cpu {

std::size_t estimate_vertical_slash_bytes(const EstimateVerticalSlashArgs& args,
                                          const Executor& executor);
void estimate_vertical_slash(const EstimateVerticalSlashArgs& args, Workspace workspace,
                             const Executor& executor);

std::size_t estimate_block_sparse_bytes(const EstimateBlockSparseArgs& args,
                                        const Executor& executor);
void estimate_block_sparse(const EstimateBlockSparseArgs& args, Workspace workspace,
                           const Executor& executor);

void plan_vertical_slash(const PlanArgs& args, const Executor& executor);
void count_key_tiles(const CountTilesArgs& args, const Executor& executor);

std::size_t attention_bytes(const AttentionArgs& args, const Executor& executor);
void attention(const AttentionArgs& args, Workspace workspace, const Executor& executor);

void merge_attention(const MergeArgs& args, const Executor& executor);

}  // namespace minference::cpu
