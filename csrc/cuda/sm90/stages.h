// The stages of the sm90 backend that are its own; the others are sm80's. What cuda/sm80/stages.h
// says of all of them holds for these.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "core/backend.h"

namespace minference::sm90 {

std::size_t estimate_vertical_slash_bytes(const EstimateVerticalSlashArgs& args, const Executor&);
void estimate_vertical_slash(const EstimateVerticalSlashArgs& args, Workspace workspace,
                             const Executor& executor);
std::size_t estimate_block_sparse_bytes(const EstimateBlockSparseArgs& args, const Executor&);
void estimate_block_sparse(const EstimateBlockSparseArgs& args, Workspace workspace,
                           const Executor& executor);

std::size_t attention_bytes(const AttentionArgs& args, const Executor& executor);
void attention(const AttentionArgs& args, Workspace workspace, const Executor& executor);

}  // namespace minference::sm90
