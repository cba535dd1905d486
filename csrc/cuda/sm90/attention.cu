// Stage 3 on sm90, the host side: key sets, the work table, gathered columns, tensor maps, the
// kernel; and which calls are left to sm80's kernel.
//
//     prepare_head_keys    patterns and index lists to key sets      device/head_keys.h
//     build_work_table     items, longest first                      device/work_table.h
//     gather_columns       if some head has columns                  gather_columns.h
//     attention            persistent blocks                         attention_kernel.h
//
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>

#include "core/workspace.h"
#include "cuda/arch/element.h"
#include "cuda/check.h"
#include "cuda/common/gather_columns.h"
#include "cuda/common/head_keys.h"
#include "cuda/common/least_padded.h"
#include "cuda/device/query_scale.h"
#include "cuda/machine.h"
#include "cuda/sm80/stages.h"
#include "cuda/sm90/attention.h"
#include "cuda/sm90/attention_traits.h"
#include "cuda/sm90/backend.h"
#include "cuda/sm90/stages.h"
#include "cuda/tma/tensor_maps.h"

namespace minference::sm90 {
namespace {

constexpr int32_t kMaxDimV = 256;

/// More are not gathered: at 128 dims they would take 270 MB of work memory for 32 heads.
constexpr int32_t kMaxColumns = 16384;

/// An instance of the kernel.
struct Instance {
  int32_t dim;
  int32_t dim_v;
  tma::PanelLayout panel;
  void (*launch)(const AttentionParams& params, int32_t num_blocks, cudaStream_t stream);
};

template <typename Element, int kDim, int kDimV>
constexpr Instance instance() {
  using Traits = AttentionTraits<Element, kDim, kDimV>;
  return {kDim, kDimV, {Traits::kPanelDims, Traits::kSwizzle}, &launch_attention<Traits>};
}

template <typename Element>
const Instance& instance_of(const Shape& shape) {
  static constexpr Instance kInstances[] = {
      instance<Element, 64, 64>(),   instance<Element, 96, 96>(),   instance<Element, 128, 128>(),
      instance<Element, 192, 128>(), instance<Element, 192, 192>(), instance<Element, 256, 256>()};
  return cuda::least_padded(kInstances, shape);
}

const Instance& instance_of(const Shape& shape) {
  return shape.dtype == DType::kBFloat16 ? instance_of<arch::BFloat16>(shape)
                                         : instance_of<arch::Float16>(shape);
}

/// A tensor and its sizes, as TMA sees them.
struct MappedTensor {
  ConstTokens tensor;
  tma::RowSizes sizes;
};

struct MappedTensors {
  MappedTensor q, k, v, out;

  explicit MappedTensors(const AttentionArgs& args) {
    const Shape& shape = args.shape;
    const auto& [seqlen_q, seqlen_k] = shape.lengths;
    q = {args.q, {shape.head_dim, seqlen_q, shape.num_heads_q, shape.batch}};
    k = {args.k, {shape.head_dim, seqlen_k, shape.num_heads_kv, shape.batch}};
    v = {args.v, {shape.head_dim_v, seqlen_k, shape.num_heads_kv, shape.batch}};
    out = {tma::as_const(args.out), {shape.head_dim_v, seqlen_q, shape.num_heads_q, shape.batch}};
  }

  bool have_maps() const {
    return std::ranges::all_of(std::initializer_list<MappedTensor>{q, k, v, out},
                               [](const MappedTensor& mapped) {
                                 return tma::has_tensor_map(mapped.tensor, mapped.sizes);
                               });
  }
};

/// Items: two row blocks, or the last one of an odd number.
int64_t num_row_tiles(const Shape& shape) {
  return int64_t{shape.batch} * shape.num_heads_q * ((shape.lengths.row_blocks() + 1) / 2);
}

/// Whether a multiprocessor's worth of row tiles is there for most of them. sm80 splits the keys of
/// few row tiles over all multiprocessors; this kernel, some 1.7 times as fast on one (predicted:
/// bench/hopper.md), leaves those idle that have no tile. A single row block would leave a consumer
/// idle too.
bool fills_device(const Shape& shape, int64_t resident) {
  return shape.lengths.row_blocks() > 1 && 5 * num_row_tiles(shape) >= 3 * resident;
}

int64_t resident_blocks(const Executor& executor, const AttentionLimits& limits) {
  if (limits.resident_blocks > 0) return limits.resident_blocks;
  return cuda::num_multiprocessors(executor.device_index);
}

/// Columns of a head that there is room for. With more the call is sm80's.
int32_t num_columns(const AttentionArgs& args) {
  return std::min(args.index.columns.size, kMaxColumns);
}

struct Memory {
  HeadKeys* heads;
  Workspace table;
  unsigned long long* next_item;
  std::byte* column_k;
  std::byte* column_v;
};

Memory take_memory(WorkspaceAllocator& allocator, const AttentionArgs& args, int32_t dim_v) {
  const Shape& shape = args.shape;
  const auto heads = static_cast<std::size_t>(shape.batch) * shape.num_heads_q;
  const int32_t columns = num_columns(args);
  Memory memory{};
  memory.heads = allocator.take<HeadKeys>(heads).data();
  memory.table = allocator.take<std::byte>(cuda::work_table_bytes(shape));
  memory.next_item = allocator.take<unsigned long long>(1).data();
  memory.column_k =
      allocator.take<std::byte>(cuda::gathered_bytes(shape, columns, shape.head_dim)).data();
  memory.column_v = allocator.take<std::byte>(cuda::gathered_bytes(shape, columns, dim_v)).data();
  return memory;
}

/// Gathered rows as a tensor; without any, `other`, for the map must be one of something.
MappedTensor gathered_tensor(const Shape& shape, const cuda::GatheredRows& rows,
                             const MappedTensor& other) {
  if (rows.num_columns == 0) return other;
  const int64_t head_stride = int64_t{rows.num_columns} * rows.dims;
  return {.tensor = {.data = rows.data,
                     .batch_stride = head_stride * shape.num_heads_q,
                     .token_stride = rows.dims,
                     .head_stride = head_stride},
          .sizes = {rows.dims, rows.num_columns, shape.num_heads_q, shape.batch}};
}

tma::AttentionMaps make_maps(const Shape& shape, const MappedTensors& tensors,
                             const cuda::GatheredRows& keys, const cuda::GatheredRows& values,
                             const tma::PanelLayout& panel) {
  const auto map = [&](const MappedTensor& mapped) {
    return tma::tensor_map(mapped.tensor, mapped.sizes, panel);
  };
  return {.q = map(tensors.q),
          .k = map(tensors.k),
          .v = map(tensors.v),
          .out = map(tensors.out),
          .column_k = map(gathered_tensor(shape, keys, tensors.k)),
          .column_v = map(gathered_tensor(shape, values, tensors.v))};
}

}  // namespace

std::size_t attention_bytes(const AttentionArgs& args, const Executor& executor,
                            const AttentionLimits& limits) {
  // Not all that decides whose call it is is known here.
  const std::size_t others = sm80::attention_bytes(args, executor);
  if (!limits.serves_small && !fills_device(args.shape, resident_blocks(executor, limits))) {
    return others;
  }
  WorkspaceAllocator allocator;
  take_memory(allocator, args, kMaxDimV);
  return std::max(allocator.bytes(), others);
}

void attention(const AttentionArgs& args, Workspace workspace, const Executor& executor,
               const AttentionLimits& limits) {
  const Shape& shape = args.shape;
  const MappedTensors tensors(args);
  const int64_t resident = resident_blocks(executor, limits);
  if (!(limits.serves_small || fills_device(shape, resident)) || !tensors.have_maps() ||
      args.index.columns.size > kMaxColumns) {
    return sm80::attention(args, workspace, executor);
  }
  const auto stream = static_cast<cudaStream_t>(executor.stream);
  const Instance& instance = instance_of(shape);
  WorkspaceAllocator allocator(workspace);
  const Memory memory = take_memory(allocator, args, shape.head_dim_v);
  const cuda::GatheredRows keys{memory.column_k, num_columns(args), shape.head_dim};
  const cuda::GatheredRows values{memory.column_v, num_columns(args), shape.head_dim_v};

  const tma::AttentionMaps maps = make_maps(shape, tensors, keys, values, instance.panel);
  cuda::prepare_head_keys(shape, args.patterns, args.index, memory.heads, stream);
  const device::QueryScale scale(args.softmax_scale);
  const AttentionParams params{.maps = maps,
                               .lse = args.lse,
                               .lengths = shape.lengths,
                               .num_heads_q = shape.num_heads_q,
                               .group_size = shape.group_size(),
                               .scale_log2 = scale.log2,
                               .score_sign = scale.sign(),
                               .heads = memory.heads,
                               .table = cuda::build_work_table(
                                   shape, memory.heads, cuda::Joining::kAll, memory.table, stream),
                               .next_item = memory.next_item};
  cuda::gather_columns(args, memory.heads, keys, values, stream);
  MINF_CUDA(cudaMemsetAsync(memory.next_item, 0, sizeof(*memory.next_item), stream));
  const int64_t num_blocks = std::min(num_row_tiles(shape), resident);
  instance.launch(params, static_cast<int32_t>(num_blocks), stream);
}

std::size_t attention_bytes(const AttentionArgs& args, const Executor& executor) {
  return attention_bytes(args, executor, {.serves_small = is_forced(backend())});
}

void attention(const AttentionArgs& args, Workspace workspace, const Executor& executor) {
  attention(args, workspace, executor, {.serves_small = is_forced(backend())});
}

}  // namespace minference::sm90
