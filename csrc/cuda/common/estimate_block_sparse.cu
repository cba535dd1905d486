// Stage 1 of block-sparse, the host side: rows are pooled and lists selected in waves of heads, so
// that pooled queries and keys stay small and in the L2 cache. The backend brings the kernels.
//
// A wave holds as many targets as keep its pooled rows within limits.wave_bytes, but at least one:
// at 1M tokens, head_dim 128, a KV group of 4 query heads, 42 MB. Pooled keys belong to a wave; a
// KV group that two waves share is pooled by both.
//
// Source: MInference (arXiv:2407.02490), Algorithm 2.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <vector>

#include "core/check.h"
#include "core/workspace.h"
#include "cuda/common/estimate_block_sparse.h"
#include "cuda/common/stages.h"
#include "cuda/common/table.h"

namespace minference::cuda {
namespace {

using block_sparse::Kernels;
using block_sparse::SelectTarget;

/// Consecutive targets, and the KV heads that they read.
struct Wave {
  std::size_t first_target = 0;
  std::size_t num_targets = 0;
  std::size_t first_key_head = 0;
  std::size_t num_key_heads = 0;
};

class Estimator {
 public:
  Estimator(const EstimateBlockSparseArgs& args, const BlockSparseLimits& limits,
            const Kernels& kernels)
      : args_(args),
        limits_(limits),
        kernels_(kernels),
        row_slots_(padded_slots(args.shape.lengths.row_blocks(), kernels.row_padding)),
        key_slots_(padded_slots(args.shape.lengths.key_blocks(), kPoolPadding)) {
    for (std::size_t t = 0; t < args.targets.size(); ++t) add_target(t);
  }

  std::size_t bytes() {
    WorkspaceAllocator memory;
    take(memory);
    return memory.bytes();
  }

  void run(Workspace workspace, cudaStream_t stream) {
    WorkspaceAllocator memory(workspace);
    take(memory);
    store_tables(stream);
    for (const Wave& wave : waves_) run_wave(wave, stream);
  }

 private:
  /// Adds a target to the last wave, or to a new one if that is full.
  void add_target(std::size_t t) {
    const bool other_keys = t == 0 || !same_keys(t - 1, t);
    const int64_t row_bytes = slot_bytes() * row_slots_;
    const int64_t key_bytes = slot_bytes() * key_slots_;
    if (!waves_.empty()) {
      const Wave& wave = waves_.back();
      const auto targets = static_cast<int64_t>(wave.num_targets) + 1;
      const auto key_heads = static_cast<int64_t>(wave.num_key_heads) + (other_keys ? 1 : 0);
      if (targets * row_bytes + key_heads * key_bytes > limits_.wave_bytes) waves_.emplace_back();
    } else {
      waves_.emplace_back();
    }
    Wave& wave = waves_.back();
    if (wave.num_targets == 0) {
      wave.first_target = t;
      wave.first_key_head = key_heads_.size();
    }
    if (wave.num_targets == 0 || other_keys) {
      key_heads_.push_back(t);
      ++wave.num_key_heads;
    }
    ++wave.num_targets;
  }

  void take(WorkspaceAllocator& memory) {
    std::size_t targets = 0, key_heads = 0;
    for (const Wave& wave : waves_) {
      targets = std::max(targets, wave.num_targets);
      key_heads = std::max(key_heads, wave.num_key_heads);
    }
    targets_ = memory.take<SelectTarget>(args_.targets.size()).data();
    query_rows_ = memory.take<HeadRows<uint16_t>>(args_.targets.size()).data();
    key_rows_ = memory.take<HeadRows<uint16_t>>(key_heads_.size()).data();
    queries_ = memory.take<SplitFragment>(targets * static_cast<std::size_t>(fragments(row_slots_)))
                   .data();
    keys_ = memory.take<SplitFragment>(key_heads * static_cast<std::size_t>(fragments(key_slots_)))
                .data();
  }

  void store_tables(cudaStream_t stream) const {
    std::vector<SelectTarget> targets;
    std::vector<HeadRows<uint16_t>> query_heads, key_heads;
    const Sequences sequences = args_.shape.sequences();
    for (const Wave& wave : waves_) {
      int32_t key_head = -1;
      for (std::size_t t = wave.first_target; t < wave.first_target + wave.num_targets; ++t) {
        const BlockSparseTarget& target = args_.targets[t];
        if (t == wave.first_target || !same_keys(t - 1, t)) ++key_head;
        targets.push_back({.block_index = target.block_index,
                           .row_stride = target.row_stride,
                           .top_k = target.top_k,
                           .key_head = key_head});
        query_heads.push_back(
            query_rows<uint16_t>(args_.q, sequences.at(target.batch), target.head));
      }
    }
    for (const std::size_t t : key_heads_) {
      const BlockSparseTarget& target = args_.targets[t];
      key_heads.push_back(
          args_.k.head<uint16_t>(sequences.at(target.batch), args_.shape.kv_head(target.head)));
    }
    store_table(targets.data(), targets.size(), targets_, stream);
    store_table(query_heads.data(), query_heads.size(), query_rows_, stream);
    store_table(key_heads.data(), key_heads.size(), key_rows_, stream);
  }

  void run_wave(const Wave& wave, cudaStream_t stream) const {
    const auto num_targets = static_cast<int32_t>(wave.num_targets);
    const PoolParams pool = {.queries = {.rows = query_rows_ + wave.first_target,
                                         .num_heads = num_targets,
                                         .num_rows = args_.shape.lengths.seqlen_q,
                                         .slots = row_slots_,
                                         .pooled = queries_,
                                         .order = SlotOrder::kAscending},
                             .keys = {.rows = key_rows_ + wave.first_key_head,
                                      .num_heads = static_cast<int32_t>(wave.num_key_heads),
                                      .num_rows = args_.shape.lengths.seqlen_k,
                                      .slots = key_slots_,
                                      .pooled = keys_,
                                      .order = SlotOrder::kQuads},
                             .head_dim = args_.shape.head_dim};
    (args_.shape.dtype == DType::kBFloat16 ? kernels_.pool_bfloat16 : kernels_.pool_float16)(
        pool, stream);
    const bool by_mass = args_.top_p < 1;
    kernels_.select(
        {.targets = targets_ + wave.first_target,
         .queries = queries_,
         .keys = keys_,
         .query_fragments = fragments(row_slots_),
         .key_fragments = fragments(key_slots_),
         .lengths = args_.shape.lengths,
         .num_targets = num_targets,
         .max_streamed_top_k = limits_.max_streamed_top_k,
         .multiplier =
             by_mass ? static_cast<float>(args_.softmax_scale * std::numbers::log2e) : 1.0f,
         .share = args_.top_p},
        stream);
  }

  bool same_keys(std::size_t a, std::size_t b) const {
    return share_keys(args_.shape, args_.targets[a], args_.targets[b]);
  }

  int64_t fragments(int64_t slots) const { return num_fragments(slots, kernels_.padded_dim); }

  /// A pooled row: two bf16 per dim.
  int64_t slot_bytes() const { return int64_t{kernels_.padded_dim} * 4; }

  const EstimateBlockSparseArgs& args_;
  const BlockSparseLimits limits_;
  const Kernels kernels_;
  const int64_t row_slots_;
  const int64_t key_slots_;
  std::vector<Wave> waves_;
  std::vector<std::size_t> key_heads_;        // Per wave and KV head, a target that reads it.
  SelectTarget* targets_ = nullptr;           // [targets]
  HeadRows<uint16_t>* query_rows_ = nullptr;  // [targets]
  HeadRows<uint16_t>* key_rows_ = nullptr;    // [key_heads_]
  SplitFragment* queries_ = nullptr;          // [a wave's targets][row_slots_]
  SplitFragment* keys_ = nullptr;             // [a wave's KV heads][key_slots_]
};

}  // namespace

std::size_t estimate_block_sparse_bytes(const EstimateBlockSparseArgs& args,
                                        const block_sparse::Kernels& kernels,
                                        const BlockSparseLimits& limits) {
  return Estimator(args, limits, kernels).bytes();
}

void estimate_block_sparse(const EstimateBlockSparseArgs& args,
                           const block_sparse::Kernels& kernels, const BlockSparseLimits& limits,
                           Workspace workspace, cudaStream_t stream) {
  Estimator(args, limits, kernels).run(workspace, stream);
}

std::size_t estimate_block_sparse_bytes(const EstimateBlockSparseArgs& args,
                                        BlockSparseKernels kernels) {
  return estimate_block_sparse_bytes(args, kernels(args.shape), BlockSparseLimits{});
}

void estimate_block_sparse(const EstimateBlockSparseArgs& args, BlockSparseKernels kernels,
                           Workspace workspace, const Executor& executor) {
  estimate_block_sparse(args, kernels(args.shape), BlockSparseLimits{}, workspace,
                        static_cast<cudaStream_t>(executor.stream));
}

}  // namespace minference::cuda
