// The stages of the sm80 backend that issue its matrix instructions; the others are those of
// common/stages.h, which says what holds for all.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "core/backend.h"
#include "cuda/common/stages.h"

namespace minference::sm80 {

std::size_t estimate_vertical_slash_bytes(const EstimateVerticalSlashArgs& args, const Executor&);
void estimate_vertical_slash(const EstimateVerticalSlashArgs& args, Workspace workspace,
                             const Executor& executor);

/// The kernels of the smallest padded head_dim that fits.
cuda::block_sparse::Kernels block_sparse_kernels(const Shape& shape);

std::size_t attention_bytes(const AttentionArgs& args, const Executor& executor);
void attention(const AttentionArgs& args, Workspace workspace, const Executor& executor);

}  // namespace minference::sm80
