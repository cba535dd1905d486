// One call of attention, whose instructions tools/static_counts.py counts:
//
//     count_attention BACKEND PATTERN HEAD_DIM HEAD_DIM_V TILES
//
// One head of 128 bf16 rows over TILES times 128 keys of one kind: dense (all keys), runs, columns
// or blocks (always of the same 16K keys). The machine has one multiprocessor, so that no call is
// split. The cost of one more tile is the difference between two calls.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "minference/minference.h"
#include "ptxsim/runtime.h"
#include "simt/instructions.h"

namespace {

constexpr int64_t kRows = 128;
constexpr int64_t kTileKeys = 128;
constexpr int64_t kBlockKeys = 64;
constexpr int64_t kSparseKeys = 16384;

/// Ends the program if a call fails.
void check(minf_status status) {
  if (status == MINF_OK) return;
  std::fprintf(stderr, "%s %s\n", minf_last_error(), ptxsim::runtime::failure_text().c_str());
  std::exit(1);
}

/// A contiguous tensor in device memory that lives until the program ends.
template <typename T>
minf_tensor on_device(const std::vector<T>& values, minf_dtype dtype,
                      std::initializer_list<int64_t> shape) {
  minf_tensor tensor{};
  tensor.dtype = dtype;
  tensor.device_type = MINF_DEVICE_CUDA;
  for (const int64_t size : shape) tensor.shape[tensor.ndim++] = size;
  int64_t stride = 1;
  for (int i = tensor.ndim - 1; i >= 0; --i) {
    tensor.stride[i] = stride;
    stride *= tensor.shape[i];
  }
  const std::size_t bytes = values.size() * sizeof(T);
  cudaMalloc(&tensor.data, bytes);
  cudaMemcpy(tensor.data, values.data(), bytes, cudaMemcpyHostToDevice);
  return tensor;
}

minf_tensor random_rows(int64_t count, int64_t dim, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<uint16_t> values(static_cast<std::size_t>(count * dim));
  for (uint16_t& value : values) {
    value = static_cast<uint16_t>(simt::pack_bf16x2(normal(random), 0));
  }
  return on_device(values, MINF_BFLOAT16, {1, count, 1, dim});
}

/// The keys of a call, and the tensors that list them.
struct Selection {
  int64_t num_keys = kSparseKeys;
  minf_pattern pattern{};
  minf_sparse_index index{};
};

Selection select(const std::string& kind, int64_t tiles) {
  Selection selection;
  const int64_t keys = tiles * kTileKeys;
  if (kind == "dense") {
    selection.num_keys = keys;
    return selection;
  }
  if (kind == "blocks") {
    selection.pattern = minf_pattern_default(MINF_BLOCK_SPARSE);
    std::vector<int32_t> blocks(static_cast<std::size_t>(keys / kBlockKeys));
    for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(2 * i);
    const auto count = static_cast<int64_t>(blocks.size());
    blocks.insert(blocks.end(), blocks.begin(), blocks.begin() + count);  // For both row blocks.
    selection.index.block_index = on_device(blocks, MINF_INT32, {1, 1, 2, count});
    return selection;
  }
  selection.pattern = minf_pattern_default(MINF_VERTICAL_SLASH);
  std::vector<int32_t> columns, run, run_count = {0};
  if (kind == "columns") {
    for (int64_t i = 0; i < keys; ++i) columns.push_back(static_cast<int32_t>(3 * i));
  } else {
    columns = {-1};
  }
  if (kind == "runs") {
    // Past the diagonal: every key is visible to every row.
    run = {static_cast<int32_t>(kRows), static_cast<int32_t>(kRows + keys)};
    run_count = {1};
  } else {
    run = {0, 0};
  }
  const auto num_columns = static_cast<int64_t>(columns.size());
  selection.index.vertical_index = on_device(columns, MINF_INT32, {1, 1, num_columns});
  selection.index.runs = on_device(run, MINF_INT32, {1, 1, 1, 2});
  selection.index.run_count = on_device(run_count, MINF_INT32, {1, 1});
  return selection;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: count_attention BACKEND PATTERN HEAD_DIM HEAD_DIM_V TILES\n");
    return 2;
  }
  ptxsim::runtime::machine().devices[0].num_multiprocessors = 1;
  check(minf_set_backend(argv[1]));
  const int64_t dim = std::atoll(argv[3]), dim_v = std::atoll(argv[4]), tiles = std::atoll(argv[5]);

  Selection selection = select(argv[2], tiles);
  std::mt19937 random(1);
  const minf_tensor q = random_rows(kRows, dim, random);
  const minf_tensor k = random_rows(selection.num_keys, dim, random);
  const minf_tensor v = random_rows(selection.num_keys, dim_v, random);
  const minf_tensor out = random_rows(kRows, dim_v, random);
  selection.index.struct_size = sizeof selection.index;
  selection.index.patterns = &selection.pattern;
  selection.index.num_patterns = 1;
  std::size_t bytes = 0;
  check(minf_sparse_attention_workspace_bytes(&q, &k, &selection.index, nullptr, &bytes));
  const minf_tensor workspace = on_device(std::vector<uint8_t>(bytes + 1), MINF_INT32, {1});
  check(minf_sparse_attention(&q, &k, &v, &selection.index, nullptr, &out, nullptr, workspace.data,
                              bytes, nullptr));
  check(cudaDeviceSynchronize() == cudaSuccess ? MINF_OK : MINF_ERROR_CUDA);
  return 0;
}
