// All entry points on one problem and one device, with their inputs, outputs and work memory.
//
// The index stages run first; attention reads the lists that they wrote, or that were copied in.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <stdexcept>
#include <vector>

#include "buffer.h"
#include "case.h"
#include "minference/minference.h"
#include "patterns.h"

namespace minference::gpu_test {

struct Problem {
  int64_t batch;
  int64_t seqlen_q;
  int64_t seqlen_k;
  int64_t num_heads_q;
  int64_t num_heads_kv;
  int64_t head_dim;
  int64_t vertical_size;
  int64_t slash_size;
  int64_t top_k;
  double mass = 1;  // Budget of all three lists (top_p and the like); 1: none.
};

inline void check(minf_status status) {
  if (status != MINF_OK) throw std::runtime_error(minf_last_error());
}

/// The result of a *_workspace_bytes function, which `ask` calls.
template <typename Ask>
int64_t answered_bytes(const Ask& ask) {
  std::size_t bytes = 0;
  check(ask(&bytes));
  return static_cast<int64_t>(bytes);
}

/// Work memory, uninitialised.
inline std::unique_ptr<Buffer> workspace_of(minf_device_type device, int64_t bytes) {
  return std::make_unique<Buffer>(device, MINF_BFLOAT16, std::vector{(bytes + 1) / 2});
}

/// Attention under one assignment of patterns to heads: stage 3 alone, and all stages in one call.
struct Attended {
  std::vector<minf_pattern> patterns;  // One per query head.
  Buffer out, lse, tiles;
  Buffer whole_out, whole_lse, whole_tiles;
  std::unique_ptr<Buffer> workspace, whole_workspace;

  Attended(minf_device_type device, minf_dtype dtype, const Problem& p)
      : out(device, dtype, {p.batch, p.seqlen_q, p.num_heads_q, p.head_dim}),
        lse(device, MINF_FLOAT32, {p.batch, p.num_heads_q, p.seqlen_q}),
        tiles(device, MINF_INT64, {p.batch, p.num_heads_q}),
        whole_out(device, dtype, {p.batch, p.seqlen_q, p.num_heads_q, p.head_dim}),
        whole_lse(device, MINF_FLOAT32, {p.batch, p.num_heads_q, p.seqlen_q}),
        whole_tiles(device, MINF_INT64, {p.batch, p.num_heads_q}) {}
};

class Calls {
 public:
  Calls(minf_device_type device, const Problem& p, minf_dtype dtype, cudaStream_t stream)
      : device_(device),
        problem_(p),
        q_(device, dtype, {p.batch, p.seqlen_q, p.num_heads_q, p.head_dim}),
        k_(device, dtype, {p.batch, p.seqlen_k, p.num_heads_kv, p.head_dim}),
        v_(device, dtype, {p.batch, p.seqlen_k, p.num_heads_kv, p.head_dim}),
        columns_(device, MINF_INT32, {p.batch, p.num_heads_q, clamped(p.vertical_size, 30)}),
        distances_(device, MINF_INT32, {p.batch, p.num_heads_q, clamped(p.slash_size, 100)}),
        runs_(device, MINF_INT32,
              {p.batch, p.num_heads_q, minf_max_runs(clamped(p.slash_size, 100), p.seqlen_k), 2}),
        run_count_(device, MINF_INT32, {p.batch, p.num_heads_q}),
        blocks_(device, MINF_INT32, {p.batch, p.num_heads_q, (p.seqlen_q + 63) / 64, p.top_k}),
        merged_(device, dtype, {p.batch, p.seqlen_q, p.num_heads_q, p.head_dim}),
        merged_lse_(device, MINF_FLOAT32, {p.batch, p.num_heads_q, p.seqlen_q}) {
    fill_inputs(/*seed=*/1);
    add_assignments(dtype);
    make_workspaces(exec_on(stream));
  }

  /// Logits with standard deviation 2.7: some keys then weigh more than others, and the average of
  /// their values does not vanish within what rounding allows.
  void fill_inputs(uint32_t seed) const {
    q_.fill(Random(3 * seed), /*scale=*/8);
    k_.fill(Random(3 * seed + 1));
    v_.fill(Random(3 * seed + 2));
  }

  void index(cudaStream_t stream) const {
    const minf_exec exec = exec_on(stream);
    const minf_vertical_slash_options by_scores = vertical_slash_options();
    const minf_block_sparse_options by_blocks = block_sparse_options();
    check(minf_estimate_vertical_slash(q_.view(), k_.view(), &by_scores, columns_.view(),
                                       distances_.view(), vertical_workspace_->data(),
                                       vertical_workspace_->bytes(), &exec));
    check(minf_plan_vertical_slash(distances_.view(), problem_.seqlen_k, runs_.view(),
                                   run_count_.view(), &exec));
    check(minf_estimate_block_sparse(q_.view(), k_.view(), &by_blocks, blocks_.view(),
                                     block_workspace_->data(), block_workspace_->bytes(), &exec));
  }

  /// Runs stage 3 on the current lists. `whole`: also makes the call that does all stages;
  /// otherwise stage 3 runs in its place, on the same lists and patterns.
  void attend(cudaStream_t stream, bool whole) const {
    const minf_exec exec = exec_on(stream);
    for (const Attended& a : attended_) {
      attend_lists(a.patterns, a.out, a.lse, a.tiles, *a.workspace, exec);
      if (whole) {
        attend_whole(a, exec);
      } else {
        attend_lists(a.patterns, a.whole_out, a.whole_lse, a.whole_tiles, *a.workspace, exec);
      }
    }
    const Attended& first = attended_.front();
    const Attended& last = attended_.back();
    check(minf_merge_attention(first.out.view(), first.lse.view(), last.whole_out.view(),
                               last.whole_lse.view(), merged_.view(), merged_lse_.view(), &exec));
  }

  void run(cudaStream_t stream) const {
    index(stream);
    attend(stream, /*whole=*/true);
  }

  /// Lists of ids that estimate made.
  std::array<const Buffer*, 3> id_lists() const { return {&columns_, &distances_, &blocks_}; }
  /// All that stage 3 reads beside q, k and v.
  std::array<const Buffer*, 5> lists() const {
    return {&columns_, &distances_, &runs_, &run_count_, &blocks_};
  }
  const std::list<Attended>& attended() const { return attended_; }
  const Buffer& merged() const { return merged_; }
  const Buffer& merged_lse() const { return merged_lse_; }

  std::vector<const Buffer*> outputs() const {
    const auto index_lists = lists();
    std::vector<const Buffer*> all(index_lists.begin(), index_lists.end());
    for (const Attended& a : attended_) {
      all.insert(all.end(), {&a.out, &a.lse, &a.tiles, &a.whole_out, &a.whole_lse, &a.whole_tiles});
    }
    all.insert(all.end(), {&merged_, &merged_lse_});
    return all;
  }
  std::vector<const Buffer*> workspaces() const {
    std::vector<const Buffer*> all = {vertical_workspace_.get(), block_workspace_.get()};
    for (const Attended& a : attended_) {
      all.insert(all.end(), {a.workspace.get(), a.whole_workspace.get()});
    }
    return all;
  }

 private:
  int64_t clamped(int64_t size, int64_t forced) const {
    return std::min(problem_.seqlen_k, std::max(size, forced));
  }
  static minf_exec exec_on(cudaStream_t stream) {
    minf_exec exec{};
    exec.struct_size = sizeof(exec);
    exec.stream = stream;
    return exec;
  }
  minf_vertical_slash_options vertical_slash_options() const {
    minf_vertical_slash_options options = minf_vertical_slash_options_default();
    options.vertical_p = options.slash_p = problem_.mass;
    return options;
  }
  minf_block_sparse_options block_sparse_options() const {
    minf_block_sparse_options options = minf_block_sparse_options_default();
    options.top_p = problem_.mass;
    return options;
  }

  minf_pattern pattern_of(int64_t kind) const {
    const auto size = [](int64_t value) { return static_cast<int32_t>(value); };
    switch (kind) {
      case MINF_A_SHAPE:
        return test::a_shape(20, size(problem_.seqlen_k / 3 + 1));
      case MINF_VERTICAL_SLASH: {
        minf_pattern pattern =
            test::vertical_slash(size(problem_.vertical_size), size(problem_.slash_size));
        const minf_vertical_slash_options options = vertical_slash_options();
        pattern.as.vertical_slash.last_q = options.last_q;
        pattern.as.vertical_slash.sink = options.sink;
        pattern.as.vertical_slash.local = options.local;
        pattern.as.vertical_slash.vertical_p = options.vertical_p;
        pattern.as.vertical_slash.slash_p = options.slash_p;
        return pattern;
      }
      case MINF_BLOCK_SPARSE: {
        minf_pattern pattern = test::block_sparse(size(problem_.top_k));
        pattern.as.block_sparse.top_p = problem_.mass;
        return pattern;
      }
      case MINF_TRI_SHAPE:
        return test::tri_shape(5, size(problem_.seqlen_k / 5 + 1), size(problem_.seqlen_q / 2));
      default:
        return test::dense();
    }
  }

  /// Head h has pattern h + rotation, with enough rotations for every pattern to occur.
  void add_assignments(minf_dtype dtype) {
    constexpr int64_t kKinds = 5;
    for (int64_t rotation = 0; rotation < kKinds; rotation += problem_.num_heads_q) {
      Attended& a = attended_.emplace_back(device_, dtype, problem_);
      for (int64_t head = 0; head < problem_.num_heads_q; ++head) {
        a.patterns.push_back(pattern_of((rotation + head) % kKinds));
      }
    }
  }

  minf_sparse_index index_of(const std::vector<minf_pattern>& patterns) const {
    minf_sparse_index index{};
    index.struct_size = sizeof(index);
    index.patterns = patterns.data();
    index.num_patterns = static_cast<int64_t>(patterns.size());
    index.vertical_index = *columns_.view();
    index.runs = *runs_.view();
    index.run_count = *run_count_.view();
    index.block_index = *blocks_.view();
    return index;
  }

  void attend_lists(const std::vector<minf_pattern>& patterns, const Buffer& out, const Buffer& lse,
                    const Buffer& tiles, const Buffer& workspace, const minf_exec& exec) const {
    const minf_sparse_index index = index_of(patterns);
    check(minf_count_key_tiles(problem_.batch, problem_.num_heads_q, problem_.seqlen_q,
                               problem_.seqlen_k, &index, tiles.view(), &exec));
    check(minf_sparse_attention(q_.view(), k_.view(), v_.view(), &index, /*options=*/nullptr,
                                out.view(), lse.view(), workspace.data(), workspace.bytes(),
                                &exec));
  }

  void attend_whole(const Attended& a, const minf_exec& exec) const {
    check(minf_prefill_attention(q_.view(), k_.view(), v_.view(), a.patterns.data(),
                                 problem_.num_heads_q, /*options=*/nullptr, a.whole_out.view(),
                                 a.whole_lse.view(), a.whole_tiles.view(),
                                 a.whole_workspace->data(), a.whole_workspace->bytes(), &exec));
  }

  void make_workspaces(const minf_exec& exec) {
    const minf_vertical_slash_options by_scores = vertical_slash_options();
    const minf_block_sparse_options by_blocks = block_sparse_options();
    const minf_tensor* q = q_.view();
    const minf_tensor* k = k_.view();
    vertical_workspace_ = workspace_of(device_, answered_bytes([&](std::size_t* bytes) {
                                         return minf_estimate_vertical_slash_workspace_bytes(
                                             q, k, &by_scores, &exec, bytes);
                                       }));
    block_workspace_ = workspace_of(device_, answered_bytes([&](std::size_t* bytes) {
                                      return minf_estimate_block_sparse_workspace_bytes(
                                          q, k, &by_blocks, &exec, bytes);
                                    }));
    for (Attended& a : attended_) {
      const auto bytes_for = [&](const std::vector<minf_pattern>& patterns) {
        const minf_sparse_index index = index_of(patterns);
        return answered_bytes([&](std::size_t* bytes) {
          return minf_sparse_attention_workspace_bytes(q, k, &index, &exec, bytes);
        });
      };
      a.workspace = workspace_of(device_, bytes_for(a.patterns));
      a.whole_workspace =
          workspace_of(device_, answered_bytes([&](std::size_t* bytes) {
                         return minf_prefill_attention_workspace_bytes(
                             q, k, a.patterns.data(), problem_.num_heads_q, &exec, bytes);
                       }));
    }
  }

  minf_device_type device_;
  Problem problem_;
  Buffer q_, k_, v_;
  Buffer columns_, distances_, runs_, run_count_, blocks_;
  Buffer merged_, merged_lse_;
  std::list<Attended> attended_;
  std::unique_ptr<Buffer> vertical_workspace_, block_workspace_;
};

}  // namespace minference::gpu_test
