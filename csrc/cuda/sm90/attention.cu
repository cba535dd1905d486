// Stage 3 on sm90, the host side: key sets, the work table, gathered columns, tensor maps, the
// kernel; and which calls it refuses, or yields to the implementation behind it.
//
//     prepare_attention    key sets and items        common/attention_launch.h
//     gather_columns       if some head has columns  common/gather_columns.h
//     attention            persistent blocks         attention_kernel.h
//
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>

#include "core/workspace.h"
#include "cuda/common/attention_launch.h"
#include "cuda/common/gather_columns.h"
#include "cuda/common/head_dims.h"
#include "cuda/device/online_softmax.h"
#include "cuda/machine.h"
#include "cuda/sm90/kernels.h"
#include "cuda/sm90/stages.h"
#include "cuda/tma/attention_maps.h"

namespace minference::sm90 {
namespace {

/// More columns are not gathered: at 128 dims they would take 270 MB of work memory for 32 heads.
constexpr int32_t kMaxColumns = 16384;

AttentionInstance instance_of(const Shape& shape) {
  return cuda::with_element(shape.dtype, [&]<typename Element>() {
    return cuda::with_attention_dims(shape.head_dim, shape.head_dim_v, [&]<int kDim, int kDimV>() {
      return attention_instance<Element, kDim, kDimV>();
    });
  });
}

/// Number of items: two row blocks each; if their number is odd, the last item has one.
int64_t num_row_tiles(const Shape& shape) {
  return int64_t{shape.batch} * shape.num_heads_q * ((shape.lengths.row_blocks() + 1) / 2);
}

/// True if there are row tiles for at least 60 % of the resident blocks. Below that, sm80's split
/// over keys keeps more multiprocessors busy; this kernel, some 1.7 times as fast on one
/// (predicted: docs/hopper.md), leaves those idle that have no tile. A single row block would leave
/// a consumer idle too.
bool fills_device(const Shape& shape, int64_t resident) {
  return shape.lengths.row_blocks() > 1 && 5 * num_row_tiles(shape) >= 3 * resident;
}

int64_t resident_blocks(const Executor& executor, const AttentionLimits& limits) {
  if (limits.resident_blocks > 0) return limits.resident_blocks;
  return cuda::num_multiprocessors(executor.device_index);
}

/// Columns of a head that the work memory holds; calls with more are refused.
int32_t num_columns(const AttentionArgs& args) {
  return std::min(args.index.columns.size, kMaxColumns);
}

struct Memory {
  cuda::AttentionMemory common;
  std::byte* column_k;
  std::byte* column_v;
};

Memory take_memory(WorkspaceAllocator& allocator, const AttentionArgs& args, int32_t dim_v) {
  const Shape& shape = args.shape;
  const int32_t columns = num_columns(args);
  Memory memory{.common = {allocator, shape}, .column_k = nullptr, .column_v = nullptr};
  memory.column_k =
      allocator.take<std::byte>(cuda::gathered_bytes(shape, columns, shape.head_dim)).data();
  memory.column_v = allocator.take<std::byte>(cuda::gathered_bytes(shape, columns, dim_v)).data();
  return memory;
}

}  // namespace

const char* attention_refuses(const AttentionArgs& args) {
  if (!tma::AttentionTensors(args).have_maps()) {
    return "TMA cannot address q, k, v or out: a stride is 0, or too large for a tensor map";
  }
  if (args.index.columns.size > kMaxColumns) {
    return "lists of more than 16384 columns, which would take too much memory to gather";
  }
  return "";
}

const char* attention_yields(const AttentionArgs& args, const Executor& executor) {
  if (fills_device(args.shape, resident_blocks(executor, {}))) return "";
  return "too few row blocks to fill the GPU: splitting their keys is faster";
}

std::size_t attention_bytes(const AttentionArgs& args, const Executor& /*executor*/,
                            const AttentionLimits& /*limits*/) {
  WorkspaceAllocator allocator;
  take_memory(allocator, args, cuda::kMaxDimV);
  return allocator.bytes();
}

void attention(const AttentionArgs& args, Workspace workspace, const Executor& executor,
               const AttentionLimits& limits) {
  const Shape& shape = args.shape;
  const tma::AttentionTensors tensors(args);
  const int64_t resident = resident_blocks(executor, limits);
  const auto stream = static_cast<cudaStream_t>(executor.stream);
  const AttentionInstance instance = instance_of(shape);
  WorkspaceAllocator allocator(workspace);
  const Memory memory = take_memory(allocator, args, shape.head_dim_v);
  const cuda::GatheredRows keys{memory.column_k, num_columns(args), shape.head_dim};
  const cuda::GatheredRows values{memory.column_v, num_columns(args), shape.head_dim_v};

  const tma::AttentionMaps maps = tensors.maps(keys, values, instance.panel);
  const cuda::WorkTable table =
      cuda::prepare_attention(args, memory.common, cuda::Joining::kAll, stream);
  const device::QueryScale scale(args.softmax_scale);
  const AttentionParams params{.maps = maps,
                               .lse = args.lse,
                               .sequences = shape.sequences(),
                               .num_heads_q = shape.num_heads_q,
                               .group_size = shape.group_size(),
                               .scale_log2 = scale.log2,
                               .score_sign = scale.sign(),
                               .heads = memory.common.heads,
                               .table = table,
                               .next_item = memory.common.next_item};
  cuda::gather_columns(args, memory.common.heads, keys, values, stream);
  const int64_t num_blocks = std::min(num_row_tiles(shape), resident);
  instance.launch(params, static_cast<int32_t>(num_blocks), stream);
}

std::size_t attention_bytes(const AttentionArgs& args, const Executor& executor) {
  return attention_bytes(args, executor, AttentionLimits{});
}

void attention(const AttentionArgs& args, Workspace workspace, const Executor& executor) {
  attention(args, workspace, executor, AttentionLimits{});
}

}  // namespace minference::sm90
