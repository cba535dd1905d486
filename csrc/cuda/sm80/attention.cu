// Stage 3 on sm80, the host side: key sets, the work table, the kernel, and, in small calls, the
// combination of splits.
//
//     prepare_attention    key sets and items           common/attention_launch.h
//     attention            persistent blocks            attention_kernel.h
//     combine_splits       only if keys were split      common/attention_launch.h
//
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>

#include "core/host_device.h"
#include "core/workspace.h"
#include "cuda/common/attention_launch.h"
#include "cuda/common/head_dims.h"
#include "cuda/device/online_softmax.h"
#include "cuda/machine.h"
#include "cuda/sm80/kernels.h"
#include "cuda/sm80/stages.h"

namespace minference::sm80 {
namespace {

/// Registers allow no more; *_bytes uses it, because it knows no instance.
constexpr int32_t kMaxResidentBlocks = 2;

AttentionInstance instance_of(const Shape& shape) {
  return cuda::with_element(shape.dtype, [&]<typename Element>() {
    return cuda::with_attention_dims(shape.head_dim, shape.head_dim_v, [&]<int kDim, int kDimV>() {
      return attention_instance<Element, kDim, kDimV>();
    });
  });
}

int64_t num_row_blocks(const Shape& shape) {
  return int64_t{shape.batch} * shape.num_heads_q * shape.lengths.row_blocks();
}

/// Parts into which each row block's keys may be split; with more resident blocks, at least as
/// many. Two rounds of parts at most, each of 4 tiles at least: shorter parts would be mostly
/// beginning and end.
int32_t most_splits(const Shape& shape, int64_t resident) {
  constexpr int64_t kMinTiles = 4, kMaxRounds = 2;
  const int64_t by_tiles = shape.lengths.key_blocks() / kMinTiles;
  const int64_t by_rounds = kMaxRounds * resident / std::max<int64_t>(num_row_blocks(shape), 1);
  return static_cast<int32_t>(std::max<int64_t>(std::min(by_tiles, by_rounds), 1));
}

/// How the row blocks of a call are dealt out to `resident` blocks that run at a time.
struct Division {
  int32_t num_splits = 1;  // Parts of a row block's keys, each an item of its own.
  bool joins = false;      // Whether row blocks may be joined; never if keys are split.

  Division(const Shape& shape, const AttentionInstance& instance, int64_t resident) {
    const int64_t items = num_row_blocks(shape);
    if (shape.lengths.seqlen_q > shape.lengths.seqlen_k / 2 && items >= resident) {
      // Row blocks of all lengths: the short ones fill up the last round.
      joins = instance.pairs && items >= 2 * resident;
      return;
    }
    // Row blocks of similar length: what counts is how many rounds they take. It takes the smallest
    // number of splits within 15 % of the least time, as in FlashAttention.
    const int32_t most = most_splits(shape, resident);
    const auto time = [&](int64_t splits) {
      return static_cast<double>(ceil_div(items * splits, resident)) / static_cast<double>(splits);
    };
    double least = time(1);
    for (int32_t splits = 2; splits <= most; ++splits) least = std::min(least, time(splits));
    while (time(num_splits) * 0.85 > least) ++num_splits;
    // A joined tile costs 4 where a single one costs 3: kPairShareOf4.
    const auto joined = static_cast<double>(ceil_div(ceil_div(items, 2), resident));
    joins = instance.pairs && items > resident && 4 * joined < 3 * time(num_splits);
    if (joins) num_splits = 1;
  }
};

struct Memory {
  cuda::AttentionMemory common;
  cuda::PartialResults partial;
};

Memory take_memory(WorkspaceAllocator& allocator, const Shape& shape, int32_t num_splits,
                   int32_t dim_v) {
  const auto heads = static_cast<std::size_t>(shape.batch) * shape.num_heads_q;
  const std::size_t rows =
      num_splits > 1 ? heads * static_cast<std::size_t>(shape.lengths.seqlen_q) * num_splits : 0;
  Memory memory{.common = {allocator, shape}, .partial = {}};
  memory.partial.out = allocator.take<float>(rows * static_cast<std::size_t>(dim_v)).data();
  memory.partial.lse2 = allocator.take<float>(rows).data();
  memory.partial.dim_v = dim_v;
  return memory;
}

/// Thread blocks that run at a time, if a multiprocessor holds `per_multiprocessor`.
int64_t resident_blocks(const Executor& executor, const AttentionLimits& limits,
                        int32_t per_multiprocessor) {
  if (limits.resident_blocks > 0) return limits.resident_blocks;
  return int64_t{std::min(per_multiprocessor, kMaxResidentBlocks)} *
         cuda::num_multiprocessors(executor.device_index);
}

}  // namespace

std::size_t attention_bytes(const AttentionArgs& args, const Executor& executor,
                            const AttentionLimits& limits) {
  const int64_t resident = resident_blocks(executor, limits, kMaxResidentBlocks);
  WorkspaceAllocator allocator;
  take_memory(allocator, args.shape, most_splits(args.shape, resident), cuda::kMaxDimV);
  return allocator.bytes();
}

void attention(const AttentionArgs& args, Workspace workspace, const Executor& executor,
               const AttentionLimits& limits) {
  const Shape& shape = args.shape;
  const auto stream = static_cast<cudaStream_t>(executor.stream);
  const AttentionInstance instance = instance_of(shape);
  const int64_t resident = resident_blocks(executor, limits, instance.resident_blocks());
  const Division division(shape, instance, resident);
  const int32_t num_splits = division.num_splits;
  WorkspaceAllocator allocator(workspace);
  const Memory memory = take_memory(allocator, shape, num_splits, instance.dim_v);

  const cuda::WorkTable table = cuda::prepare_attention(
      args, memory.common, division.joins ? cuda::Joining::kWhereShared : cuda::Joining::kNone,
      stream);
  const device::QueryScale scale(args.softmax_scale);
  const AttentionParams params{.sequences = shape.sequences(),
                               .q = args.q,
                               .k = args.k,
                               .v = args.v,
                               .out = args.out,
                               .lse = args.lse,
                               .num_heads_q = shape.num_heads_q,
                               .group_size = shape.group_size(),
                               .head_dim = shape.head_dim,
                               .head_dim_v = shape.head_dim_v,
                               .scale_log2 = scale.log2,
                               .score_sign = scale.sign(),
                               .heads = memory.common.heads,
                               .table = table,
                               .next_item = memory.common.next_item,
                               .num_splits = num_splits,
                               .num_partial_heads = shape.batch * shape.num_heads_q,
                               .partial = memory.partial,
                               .k_steps = {},
                               .v_steps = {}};
  const int64_t num_items = params.table.num_items * num_splits;
  instance.launch(params, static_cast<int32_t>(std::min(num_items, resident)), stream);
  if (num_splits == 1) return;
  cuda::combine_splits({.out = args.out,
                        .lse = args.lse,
                        .lengths = shape.lengths,
                        .num_heads_q = shape.num_heads_q,
                        .head_dim_v = shape.head_dim_v,
                        .num_splits = num_splits,
                        .num_partial_heads = params.num_partial_heads,
                        .partial = memory.partial},
                       shape.dtype, stream);
}

std::size_t attention_bytes(const AttentionArgs& args, const Executor& executor) {
  return attention_bytes(args, executor, AttentionLimits{});
}

void attention(const AttentionArgs& args, Workspace workspace, const Executor& executor) {
  attention(args, workspace, executor, AttentionLimits{});
}

}  // namespace minference::sm80
