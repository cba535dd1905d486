// Stage 1 of block-sparse on the CPU: mean-pooled queries against mean-pooled keys, then the
// largest scores of each row block.
//
// It reuses the attention kernels, with row blocks as query rows and key blocks as keys: the means
// are fp32 rows. Nothing of size row_blocks x key_blocks is kept; a task holds the scores of one
// unit of row blocks. KV heads are processed in waves, so that their pooled keys stay small.
//
// Source: MInference (arXiv:2407.02490), Algorithm 2.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <new>

#include "core/key_tiles.h"
#include "core/workspace.h"
#include "cpu/isa/kernels.h"
#include "cpu/stages.h"
#include "cpu/top_k.h"

namespace minference::cpu {
namespace {

/// The approximate size of the pooled keys of one wave of KV heads.
constexpr int64_t kWaveBytes = int64_t{4} << 20;

/// Key blocks that one task pools.
constexpr int32_t kPoolBlocks = 32;

struct ThreadMemory {
  Unit* unit;
  float* pooled;          // [rows][head_dim]: means of the unit's row blocks.
  const void** key_row;   // [key_blocks, padded to 4]
  float* scores;          // [key_blocks, padded to 4][rows]
  float* row;             // [key_blocks]: one row block's scores.
  Candidate* candidates;  // [max top_k]
};

class Estimator {
 public:
  Estimator(const EstimateBlockSparseArgs& args, const Executor& executor)
      : args_(args),
        executor_(executor),
        kernels_(kernels_for(args.shape.dtype)),
        mean_kernels_(kernels_for(DType::kFloat32)),
        sequences_(args.shape.sequences()),
        lengths_(args.shape.lengths),
        row_groups_((lengths_.row_blocks() + mean_kernels_.rows - 1) / mean_kernels_.rows),
        padded_blocks_((lengths_.key_blocks() + 3) / 4 * 4) {
    int64_t kv_heads = 0;
    for (std::size_t t = 0; t < args.targets.size(); ++t) {
      kv_heads += t == 0 || !same_keys(t - 1, t);
      max_top_k_ = std::max(max_top_k_, std::min(args.targets[t].top_k, lengths_.key_blocks()));
    }
    const int64_t bytes_per_head = int64_t{lengths_.key_blocks()} * args.shape.head_dim * 4;
    wave_heads_ = std::clamp<int64_t>(kWaveBytes / bytes_per_head, 1, kv_heads);
  }

  std::size_t bytes() {
    WorkspaceAllocator memory;
    take(memory);
    return memory.bytes();
  }

  void run(Workspace workspace) {
    WorkspaceAllocator memory(workspace);
    take(memory);
    for (std::size_t first = 0; first < args_.targets.size();) first = run_wave(first);
  }

 private:
  void take(WorkspaceAllocator& memory) {
    const auto head_dim = static_cast<std::size_t>(args_.shape.head_dim);
    const auto key_blocks = static_cast<std::size_t>(lengths_.key_blocks());
    pooled_keys_ =
        memory.take<float>(static_cast<std::size_t>(wave_heads_) * key_blocks * head_dim).data();
    wave_index_ = memory.take<int32_t>(args_.targets.size()).data();
    first_of_head_ = memory.take<std::size_t>(static_cast<std::size_t>(wave_heads_)).data();
    threads_ = memory.take<ThreadMemory>(static_cast<std::size_t>(executor_.num_threads)).data();
    for (int32_t t = 0; t < executor_.num_threads; ++t) {
      const ThreadMemory thread = take_thread(memory);
      if (threads_ != nullptr) threads_[t] = thread;
    }
  }

  ThreadMemory take_thread(WorkspaceAllocator& memory) const {
    const auto rows = static_cast<std::size_t>(mean_kernels_.rows);
    const auto head_dim = static_cast<std::size_t>(args_.shape.head_dim);
    const auto blocks = static_cast<std::size_t>(padded_blocks_);
    ThreadMemory thread;
    thread.unit = memory.take<Unit>(1).data();
    float* query = memory.take<float>(rows * head_dim).data();
    thread.pooled = memory.take<float>(rows * head_dim).data();
    thread.key_row = memory.take<const void*>(blocks).data();
    thread.scores = memory.take<float>(blocks * rows).data();
    thread.row = memory.take<float>(blocks).data();
    thread.candidates =
        memory.take<Candidate>(args_.top_p < 1 ? static_cast<std::size_t>(max_top_k_) : 0).data();
    if (query != nullptr) (new (thread.unit) Unit)->query = query;
    return thread;
  }

  /// Estimates the targets of as many KV heads as a wave holds; returns the first target left.
  std::size_t run_wave(std::size_t first) {
    int32_t heads = 0;
    std::size_t end = first;
    for (; end < args_.targets.size(); ++end) {
      if (end == first || !same_keys(end - 1, end)) {
        if (heads == wave_heads_) break;
        first_of_head_[heads++] = end;
      }
      wave_index_[end] = heads - 1;
    }
    const int64_t pool_tasks = (lengths_.key_blocks() + kPoolBlocks - 1) / kPoolBlocks;
    parallel_for(executor_, heads * pool_tasks, [&](int64_t task) {
      const auto begin = static_cast<int32_t>(task % pool_tasks * kPoolBlocks);
      pool_keys(static_cast<int32_t>(task / pool_tasks), begin,
                std::min(lengths_.key_blocks(), begin + kPoolBlocks));
    });
    const auto num_targets = static_cast<int64_t>(end - first);
    share_out(executor_, executor_.num_threads, num_targets * row_groups_,
              [&](int64_t worker, int64_t task) {
                select_blocks(threads_[worker],
                              first + static_cast<std::size_t>(task / row_groups_),
                              static_cast<int32_t>(task % row_groups_));
              });
    return end;
  }

  void pool_keys(int32_t wave_head, int32_t begin, int32_t end) const {
    const BlockSparseTarget& target = args_.targets[first_of_head_[wave_head]];
    const HeadRows<std::byte> keys = args_.k.head<std::byte>(
        sequences_.at(target.batch), args_.shape.kv_head(target.head), element_bytes());
    for (int32_t block = begin; block < end; ++block) {
      const int32_t first = block * kBlock;
      kernels_.mean_of_rows(keys.row(first), args_.k.tensor.token_stride,
                            std::min(kBlock, lengths_.seqlen_k - first), args_.shape.head_dim,
                            pooled_key(wave_head, block));
    }
  }

  /// One unit of row blocks of one head: pool, score against all key blocks in sight, select.
  void select_blocks(ThreadMemory& thread, std::size_t t, int32_t row_group) const {
    const BlockSparseTarget& target = args_.targets[t];
    const HeadRows<std::byte> queries =
        query_rows<std::byte>(args_.q, sequences_.at(target.batch), target.head, element_bytes());
    const int32_t head_dim = args_.shape.head_dim;
    const int32_t first_block = row_group * mean_kernels_.rows;
    Unit& unit = *thread.unit;
    unit.num_rows = std::min(mean_kernels_.rows, lengths_.row_blocks() - first_block);
    for (int32_t lane = 0; lane < mean_kernels_.rows; ++lane) {
      unit.query_row[lane] = kZeroRow;
      if (lane >= unit.num_rows) continue;
      const int32_t first_row = (first_block + lane) * kBlock;
      float* mean = thread.pooled + int64_t{lane} * head_dim;
      kernels_.mean_of_rows(queries.row(first_row), args_.q.token_stride,
                            std::min(kBlock, lengths_.seqlen_q - first_row), head_dim, mean);
      unit.query_row[lane] = mean;
    }
    mean_kernels_.pack_query(unit, head_dim, QuerySign::kPositive);

    const int32_t blocks = allowed_blocks(first_block + unit.num_rows - 1);
    const int32_t padded = (blocks + 3) / 4 * 4;
    for (int32_t n = 0; n < padded; ++n) {
      thread.key_row[n] = n < blocks ? pooled_key(wave_index_[t], n) : kZeroRow;
    }
    mean_kernels_.score_keys(unit, thread.key_row, padded, head_dim, thread.scores);
    for (int32_t lane = 0; lane < unit.num_rows; ++lane) {
      select_row(thread, target, first_block + lane, lane);
    }
  }

  void select_row(ThreadMemory& thread, const BlockSparseTarget& target, int32_t row_block,
                  int32_t lane) const {
    const int32_t blocks = allowed_blocks(row_block);
    const std::span scores(thread.row, static_cast<std::size_t>(blocks));
    for (int32_t n = 0; n < blocks; ++n) {
      const float score = thread.scores[n * mean_kernels_.rows + lane];
      // A row with NaN or inf affects only its own block, which becomes the last choice.
      scores[n] = std::isfinite(score) ? score : std::numeric_limits<float>::lowest();
    }
    if (args_.top_p < 1) to_masses(scores);

    // Forced blocks: the first, and those that hold the diagonal's keys [end_r - 64, end_r).
    const int32_t diagonal = RowBlock(lengths_, row_block).first_position / kBlock;
    double forced_mass = 0, total = 0;
    for (const float score : scores) total += score;
    const auto force = [&](int32_t block) {
      if (scores[block] == kForcedScore) return;
      forced_mass += scores[block];
      scores[block] = kForcedScore;
    };
    force(0);
    for (int32_t block = diagonal; block < blocks; ++block) force(block);

    int32_t* index = target.block_index + row_block * target.row_stride;
    const int32_t count = std::min(target.top_k, blocks);
    select_largest(scores, count, index);
    if (args_.top_p < 1) {
      keep_mass(scores, forced_mass, count, args_.top_p * total, index,
                {thread.candidates, static_cast<std::size_t>(count)});
    }
    std::fill(index + count, index + target.top_k, -1);
  }

  /// Turns scores into softmax weights relative to the largest. A last choice weighs 0, whatever
  /// the sign of the scale, unless all are last choices.
  void to_masses(std::span<float> scores) const {
    const auto scale = static_cast<float>(args_.softmax_scale);
    constexpr float kLast = std::numeric_limits<float>::lowest();
    float best = kLast;
    for (const float score : scores) {
      if (score == kLast) continue;
      if (best == kLast || (scale < 0 ? score < best : score > best)) best = score;
    }
    for (float& score : scores) {
      score = score == kLast && best != kLast ? 0 : std::exp(scale * (score - best));
    }
  }

  bool same_keys(std::size_t a, std::size_t b) const {
    return share_keys(args_.shape, args_.targets[a], args_.targets[b]);
  }

  /// Key blocks whose first key some row of the row block sees.
  int32_t allowed_blocks(int32_t row_block) const {
    return RowBlock(lengths_, row_block).last_position / kBlock + 1;
  }

  float* pooled_key(int32_t wave_head, int32_t block) const {
    return pooled_keys_ +
           (int64_t{wave_head} * lengths_.key_blocks() + block) * args_.shape.head_dim;
  }

  int64_t element_bytes() const { return dtype_bytes(args_.shape.dtype); }

  const EstimateBlockSparseArgs& args_;
  const Executor& executor_;
  const KernelTable& kernels_;       // Reads q and k.
  const KernelTable& mean_kernels_;  // Scores fp32 means.
  const Sequences sequences_;
  const Lengths lengths_;
  const int32_t row_groups_;
  const int32_t padded_blocks_;
  int32_t max_top_k_ = 0;
  int64_t wave_heads_ = 0;
  float* pooled_keys_ = nullptr;          // [wave_heads][key_blocks][head_dim]
  int32_t* wave_index_ = nullptr;         // [targets]: which of the wave's KV heads.
  std::size_t* first_of_head_ = nullptr;  // [wave_heads]: a target that reads it.
  ThreadMemory* threads_ = nullptr;
};

}  // namespace

std::size_t estimate_block_sparse_bytes(const EstimateBlockSparseArgs& args,
                                        const Executor& executor) {
  return Estimator(args, executor).bytes();
}

void estimate_block_sparse(const EstimateBlockSparseArgs& args, Workspace workspace,
                           const Executor& executor) {
  Estimator(args, executor).run(workspace);
}

}  // namespace minference::cpu
