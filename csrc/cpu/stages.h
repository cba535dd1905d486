// The stages of the CPU backend, one file each, which backend.cpp puts into the table; and what
// several of them use.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "core/backend.h"
#include "cpu/isa/kernels.h"

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

// ---- What several stages use

/// How a softmax scale reaches the kernels. The magnitude is applied to scores in fp32, never to a
/// 16-bit query, which would round; the sign goes to the query, so that the largest score stays the
/// largest.
struct QueryScale {
  QuerySign sign;
  /// |scale| * log2(e); 1 for a scale of 0, whose query is zero (0 * -inf would be NaN).
  float log2;

  explicit QueryScale(double scale)
      : sign(scale > 0   ? QuerySign::kPositive
             : scale < 0 ? QuerySign::kNegative
                         : QuerySign::kZero),
        log2(scale == 0 ? 1.0f : static_cast<float>(std::abs(scale) * 1.4426950408889634)) {}
};

/// Runs work(worker, item) once for every item in [0, num_items). Whichever worker is free takes
/// the next item, in ascending order. The calls of one worker never overlap, so it may have memory
/// of its own.
template <typename Work>
void share_out(const Executor& executor, int64_t num_workers, int64_t num_items, const Work& work) {
  std::atomic<int64_t> next{0};
  parallel_for(executor, num_workers < num_items ? num_workers : num_items, [&](int64_t worker) {
    for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < num_items;) {
      work(worker, item);
    }
  });
}

}  // namespace minference::cpu
