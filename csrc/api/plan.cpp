// Stage 2 of 3, the public functions: distances to runs, and the tiles that stage 3 will compute.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <vector>

#include "api/backends.h"
#include "api/call.h"
#include "api/sparse_index.h"
#include "api/tensor.h"
#include "core/check.h"
#include "core/runs.h"

namespace minference::api {
namespace {

void check_length(const char* name, int64_t length) {
  MINF_CHECK_ARG(length >= 0 && length <= kMaxSize, name, ": expected a length in [0, ", kMaxSize,
                 "], got ", length);
}

struct PlanTensors {
  TensorArg slash_index;
  TensorArg runs;
  TensorArg run_count;
};

void check_plan(const PlanTensors& tensors, int64_t seqlen_k) {
  const auto& [slash_index, runs, run_count] = tensors;
  check_tensor(slash_index, 3, {MINF_INT32});
  check_tensor(runs, 4, {MINF_INT32});
  check_tensor(run_count, 2, {MINF_INT32});
  check_same_device(runs, slash_index);
  check_same_device(run_count, slash_index);
  const int64_t batch = slash_index.size(0);
  const int64_t heads = slash_index.size(1);
  MINF_CHECK_ARG(batch * heads <= kMaxHeads,
                 "slash_index: expected batch * num_heads_q <= ", kMaxHeads, ", got ", batch, " * ",
                 heads);
  check_shape(runs, {batch, heads, -1, 2}, "[batch, num_heads_q, max_runs, 2]");
  check_shape(run_count, {batch, heads}, "[batch, num_heads_q]");
  const int64_t needed_runs = max_runs(slash_index.size(2), seqlen_k);
  MINF_CHECK_ARG(runs.size(2) >= needed_runs, "runs: expected max_runs >= ", needed_runs, " for ",
                 slash_index.size(2), " distances below seqlen_k = ", seqlen_k, ", got ",
                 runs.size(2));
  check_run_pairs(runs);
  for (const TensorArg* output : {&runs, &run_count}) {
    check_distinct_elements(*output);
    check_data(*output);
  }
  check_data(slash_index);
  check_disjoint(runs, {slash_index, run_count});
  check_disjoint(run_count, slash_index);
}

PlanArgs plan_args(const PlanTensors& tensors, int64_t seqlen_k) {
  return {.batch = static_cast<int32_t>(tensors.slash_index.size(0)),
          .num_heads_q = static_cast<int32_t>(tensors.slash_index.size(1)),
          .seqlen_k = static_cast<int32_t>(seqlen_k),
          .slash_index = head_lists<const int32_t>(tensors.slash_index),
          .runs = head_lists<Run>(tensors.runs),
          .run_count = head_lists<int32_t>(tensors.run_count)};
}

/// Checks the sizes of a call that has no q and k.
Shape checked_shape(int64_t batch, int64_t num_heads_q, int64_t seqlen_q, int64_t seqlen_k) {
  check_length("batch", batch);
  check_length("seqlen_q", seqlen_q);
  check_length("seqlen_k", seqlen_k);
  MINF_CHECK_ARG(num_heads_q >= 1 && num_heads_q <= kMaxHeads,
                 "num_heads_q: expected a count in [1, ", kMaxHeads, "], got ", num_heads_q);
  MINF_CHECK_ARG(batch * num_heads_q <= kMaxHeads,
                 "batch: expected batch * num_heads_q <= ", kMaxHeads, ", got ", batch, " * ",
                 num_heads_q);
  MINF_CHECK_ARG(seqlen_q <= seqlen_k, "seqlen_q: expected seqlen_q <= seqlen_k = ", seqlen_k,
                 ", got ", seqlen_q);
  return {.batch = static_cast<int32_t>(batch),
          .num_heads_q = static_cast<int32_t>(num_heads_q),
          .lengths = {.seqlen_q = static_cast<int32_t>(seqlen_q),
                      .seqlen_k = static_cast<int32_t>(seqlen_k)}};
}

}  // namespace
}  // namespace minference::api

using namespace minference;
using namespace minference::api;

int64_t minf_max_runs(int64_t slash_size, int64_t seqlen_k) {
  return max_runs(std::max<int64_t>(slash_size, 0), std::clamp<int64_t>(seqlen_k, 0, kMaxSize));
}

minf_status minf_plan_vertical_slash(const minf_tensor* slash_index, int64_t seqlen_k,
                                     const minf_tensor* runs, const minf_tensor* run_count,
                                     const minf_exec* exec) {
  return guarded([&] {
    const PlanTensors tensors{
        {"slash_index", slash_index}, {"runs", runs}, {"run_count", run_count}};
    check_length("seqlen_k", seqlen_k);
    check_plan(tensors, seqlen_k);
    const Executor executor = checked_executor(exec, *slash_index);
    const Backend& backend = backend_of(tensors.slash_index);
    check_resources(backend, executor, {tensors.slash_index, tensors.runs, tensors.run_count});
    const PlanArgs args = plan_args(tensors, seqlen_k);
    if (args.batch == 0 || args.num_heads_q == 0) return;
    backend.plan_vertical_slash(args, executor);
  });
}

minf_status minf_count_key_tiles(int64_t batch, int64_t num_heads_q, int64_t seqlen_q,
                                 int64_t seqlen_k, const minf_sparse_index* index,
                                 const minf_tensor* tiles, const minf_exec* exec) {
  return guarded([&] {
    const Shape shape = checked_shape(batch, num_heads_q, seqlen_q, seqlen_k);
    const minf_sparse_index known_index = read_index(index);
    const Patterns patterns = checked_patterns(known_index, num_heads_q);
    const IndexTensors tensors(known_index);
    const TensorArg tiles_arg{"tiles", tiles};
    check_tiles(tiles_arg, shape);
    check_index_tensors(tensors, patterns, shape, /*reference=*/tiles_arg);
    for (const TensorArg& arg : tensors.all()) check_disjoint(tiles_arg, arg);
    const Executor executor = checked_executor(exec, *tiles);
    const Backend& backend = backend_of(tiles_arg);
    check_resources(
        backend, executor,
        {tiles_arg, tensors.vertical_index, tensors.runs, tensors.run_count, tensors.block_index});
    if (shape.batch == 0) return;
    const std::vector<HeadKeys> keys = pattern_keys(patterns, tensors);
    backend.count_key_tiles({.shape = shape,
                             .patterns = keys,
                             .index = index_lists(tensors),
                             .tiles = head_lists<int64_t>(tiles_arg)},
                            executor);
  });
}
