// Index tensors of patterns and of given lists.
// SPDX-License-Identifier: Apache-2.0
#include "selection.h"

#include <algorithm>
#include <numeric>

#include "gpu.h"

namespace bench {

namespace mi = minference;

const char* name_of(ListKind kind) {
  switch (kind) {
    case ListKind::kRuns:
      return "runs";
    case ListKind::kColumns:
      return "columns";
    case ListKind::kBlocks:
      return "blocks";
  }
  return "?";
}

mi::Exec exec_of(mi::DeviceType device, int32_t num_threads) {
  mi::Exec exec;
  exec.num_threads = num_threads;
  if (device == mi::DeviceType::kCuda) exec.stream = gpu::stream();
  return exec;
}

bool is_estimated(const PatternOption& pattern) {
  return std::any_of(pattern.quarters.begin(), pattern.quarters.end(), [](const mi::Pattern& p) {
    return p.kind == MINF_VERTICAL_SLASH || p.kind == MINF_BLOCK_SPARSE;
  });
}

namespace {

/// Query heads [first, first + count) with one pattern, and the keys that they read.
struct Heads {
  int64_t first;
  int64_t count;
  mi::TensorView q;
  mi::TensorView k;
};

Heads heads_of(const Qkv& qkv, int64_t first, int64_t count) {
  const int64_t group = qkv.q.view().shape(2) / qkv.k.view().shape(2);
  return {first, count, qkv.q.heads(2, first, count),
          qkv.k.heads(2, first / group, std::max<int64_t>(1, count / group))};
}

std::size_t num_bytes(const mi::TensorView& view) {
  std::size_t bytes = element_bytes(view.dtype());
  for (int32_t dim = 0; dim < view.ndim(); ++dim)
    bytes *= static_cast<std::size_t>(view.shape(dim));
  return bytes;
}

Tensor& add(Selection& selection, mi::DeviceType device, const mi::Dims& shape) {
  return selection.tensors.emplace_back(device, mi::DType::kInt32, shape);
}

void add_vertical_slash(Selection& selection, const Qkv& qkv, const Heads& heads,
                        const mi::Pattern& pattern, const mi::Exec& exec) {
  const mi::DeviceType device = qkv.q.view().device().type;
  const int64_t seqlen = qkv.k.view().shape(1), num_heads = qkv.q.view().shape(2);
  const mi::VerticalSlashOptions options;
  const int64_t num_columns = std::min<int64_t>(seqlen, std::max(pattern.a, options.sink));
  const int64_t num_distances = std::min<int64_t>(seqlen, std::max(pattern.b, options.local));
  const auto part = [&](mi::ConstTensorView& all, const mi::Dims& shape) {
    const Tensor& tensor = add(selection, device, shape);
    all = tensor.view();
    return tensor.heads(/*dim=*/1, heads.first, heads.count);
  };
  mi::ConstTensorView all_distances;  // Not part of the index: runs are.
  const auto columns = part(selection.index.vertical_index, {1, num_heads, num_columns});
  const auto distances = part(all_distances, {1, num_heads, num_distances});
  const auto runs =
      part(selection.index.runs, {1, num_heads, mi::max_runs(num_distances, seqlen), 2});
  const auto run_count = part(selection.index.run_count, {1, num_heads});
  selection.estimates.emplace_back([=](const mi::Exec& on) {
    mi::estimate_vertical_slash(heads.q, heads.k, columns, distances, {}, on);
    mi::plan_vertical_slash(distances, seqlen, runs, run_count, on);
  });
  selection.workspace_bytes =
      std::max(selection.workspace_bytes,
               mi::estimate_vertical_slash_workspace_bytes(heads.q, heads.k, options, exec));
  const std::size_t rows = static_cast<std::size_t>(std::min<int64_t>(options.last_q, seqlen));
  selection.estimate_bytes +=
      num_bytes(heads.k) + num_bytes(heads.q) / static_cast<std::size_t>(seqlen) * rows;
}

void add_block_sparse(Selection& selection, const Qkv& qkv, const Heads& heads,
                      const mi::Pattern& pattern, const mi::Exec& exec) {
  const int64_t num_blocks = (qkv.k.view().shape(1) + kBlock - 1) / kBlock;
  const Tensor& tensor =
      add(selection, qkv.q.view().device().type,
          {1, qkv.q.view().shape(2), num_blocks, std::min<int64_t>(pattern.a, num_blocks)});
  selection.index.block_index = tensor.view();
  const auto blocks = tensor.heads(/*dim=*/1, heads.first, heads.count);
  selection.estimates.emplace_back(
      [=](const mi::Exec& on) { mi::estimate_block_sparse(heads.q, heads.k, blocks, {}, on); });
  selection.workspace_bytes =
      std::max(selection.workspace_bytes,
               mi::estimate_block_sparse_workspace_bytes(heads.q, heads.k, {}, exec));
  selection.estimate_bytes += num_bytes(heads.k) + num_bytes(heads.q);
}

/// Lists of equal length, one after the other.
Tensor& add_lists(Selection& selection, mi::DeviceType device, const mi::Dims& shape,
                  const std::vector<std::vector<int32_t>>& lists) {
  std::vector<int32_t> values;
  for (const auto& list : lists) values.insert(values.end(), list.begin(), list.end());
  Tensor& tensor = add(selection, device, shape);
  tensor.memory().upload(values.data());
  return tensor;
}

}  // namespace

Selection pattern_selection(const Qkv& qkv, const PatternOption& pattern, const mi::Exec& exec) {
  Selection selection;
  const int64_t num_heads = qkv.q.view().shape(2);
  const int64_t count = num_heads / static_cast<int64_t>(pattern.quarters.size());
  int64_t first = 0;
  for (const mi::Pattern& part : pattern.quarters) {
    const Heads heads = heads_of(qkv, first, count);
    selection.index.patterns.insert(selection.index.patterns.end(), static_cast<std::size_t>(count),
                                    part);
    if (part.kind == MINF_VERTICAL_SLASH) add_vertical_slash(selection, qkv, heads, part, exec);
    if (part.kind == MINF_BLOCK_SPARSE) add_block_sparse(selection, qkv, heads, part, exec);
    first += count;
  }
  return selection;
}

Selection list_selection(const Shape& shape, ListKind kind, double density, mi::DeviceType device) {
  Selection selection;
  const int64_t heads = shape.num_heads_q;
  if (kind == ListKind::kBlocks) {
    const auto lists = random_blocks(shape, density);
    selection.index.patterns = {mi::block_sparse(1)};  // Of the sizes nothing is read.
    selection.index.block_index = add_lists(selection, device,
                                            {1, heads, static_cast<int64_t>(lists.size()) / heads,
                                             static_cast<int64_t>(lists[0].size())},
                                            lists)
                                      .view();
    return selection;
  }

  // A vertical-slash head has both: one of them without entries.
  std::vector<std::vector<int32_t>> columns(static_cast<std::size_t>(heads)), distances(columns);
  (kind == ListKind::kRuns ? distances : columns) =
      kind == ListKind::kRuns ? random_distances(shape, density) : random_columns(shape, density);
  const auto add_heads = [&](const std::vector<std::vector<int32_t>>& lists) {
    return add_lists(selection, device, {1, heads, static_cast<int64_t>(lists[0].size())}, lists)
        .view();
  };
  selection.index.patterns = {mi::vertical_slash(0, 0)};
  selection.index.vertical_index = add_heads(columns);
  const mi::TensorView slash_index = add_heads(distances);
  const int64_t max_runs = mi::max_runs(slash_index.shape(2), shape.seqlen);
  const mi::TensorView runs = add(selection, device, {1, heads, max_runs, 2}).view();
  const mi::TensorView run_count = add(selection, device, {1, heads}).view();
  selection.index.runs = runs;
  selection.index.run_count = run_count;
  const int64_t seqlen = shape.seqlen;
  selection.estimates.emplace_back([=](const mi::Exec& exec) {
    mi::plan_vertical_slash(slash_index, seqlen, runs, run_count, exec);
  });
  return selection;
}

int64_t count_tiles(const Shape& shape, const mi::SparseIndex& index, mi::DeviceType device,
                    const mi::Exec& exec) {
  Tensor tiles(device, mi::DType::kInt64, {1, shape.num_heads_q});
  mi::count_key_tiles(1, shape.num_heads_q, shape.seqlen, shape.seqlen, index, tiles.view(), exec);
  std::vector<int64_t> counts(static_cast<std::size_t>(shape.num_heads_q));
  tiles.memory().download(counts.data());
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

}  // namespace bench
