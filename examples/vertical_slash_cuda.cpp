// Vertical-slash attention on a GPU, as an inference engine calls it: device memory is allocated
// once, the stages are enqueued on a stream, then captured into a CUDA graph that is replayed on
// new inputs. Sampled rows of both results are checked against the definition, in float64 on the
// host. Usage: vertical_slash_cuda [seqlen num_heads_q num_heads_kv]; exits with 77 if no GPU can
// be used.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>

#include "minference/minference.hpp"

namespace mi = minference;
constexpr int64_t kHeadDim = 128;
constexpr mi::Device kGpu{mi::DeviceType::kCuda, 0};

void check_cuda(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

/// Device memory that lives until the process ends; an engine has its own allocator.
void* allocate(std::size_t bytes) {
  void* data = nullptr;
  check_cuda(cudaMalloc(&data, bytes));
  return data;
}

std::size_t num_bytes(const mi::TensorView& tensor) {
  const std::size_t element_bytes = tensor.dtype() == mi::DType::kBFloat16 ? 2 : 4;
  return static_cast<std::size_t>(tensor.shape(0) * tensor.stride(0)) * element_bytes;
}

mi::TensorView device_tensor(mi::DType dtype, const mi::Dims& shape) {
  const mi::TensorView without_data(nullptr, dtype, shape, kGpu);
  return {allocate(num_bytes(without_data)), dtype, shape, kGpu};
}

template <typename T>
std::vector<T> download(const mi::TensorView& tensor) {  // Only once its writer is done.
  std::vector<T> values(num_bytes(tensor) / sizeof(T));
  check_cuda(
      cudaMemcpy(values.data(), tensor.c_tensor().data, num_bytes(tensor), cudaMemcpyDeviceToHost));
  return values;
}

/// All memory that the three stages read and write. All sizes, also of work memory, depend on
/// shapes alone.
struct Layer {
  Layer(int64_t tokens, int64_t heads_q, int64_t heads_kv)
      : seqlen(tokens), num_heads_q(heads_q), num_heads_kv(heads_kv) {}
  int64_t seqlen, num_heads_q, num_heads_kv;
  // Columns and distances that are always kept (30 and 100), and some that the estimate chooses.
  int64_t num_columns = std::min(seqlen, 30 + seqlen / 16);
  int64_t num_distances = std::min(seqlen, 100 + seqlen / 128);
  int64_t max_runs = mi::max_runs(num_distances, seqlen);
  mi::TensorView q = device_tensor(mi::DType::kBFloat16, {1, seqlen, num_heads_q, kHeadDim});
  mi::TensorView k = device_tensor(mi::DType::kBFloat16, {1, seqlen, num_heads_kv, kHeadDim});
  mi::TensorView v = device_tensor(mi::DType::kBFloat16, {1, seqlen, num_heads_kv, kHeadDim});
  mi::TensorView out = device_tensor(mi::DType::kBFloat16, {1, seqlen, num_heads_q, kHeadDim});
  mi::TensorView lse = device_tensor(mi::DType::kFloat32, {1, num_heads_q, seqlen});
  mi::TensorView columns = device_tensor(mi::DType::kInt32, {1, num_heads_q, num_columns});
  mi::TensorView distances = device_tensor(mi::DType::kInt32, {1, num_heads_q, num_distances});
  mi::TensorView runs = device_tensor(mi::DType::kInt32, {1, num_heads_q, max_runs, 2});
  mi::TensorView run_count = device_tensor(mi::DType::kInt32, {1, num_heads_q});
  mi::SparseIndex index{{mi::vertical_slash(0, 0)}, columns, runs, run_count, /*block_index=*/{}};
  // Both stages that need work memory share one block: on a stream they use it one after the other.
  std::size_t workspace_bytes = std::max(mi::estimate_vertical_slash_workspace_bytes(q, k),
                                         mi::sparse_attention_workspace_bytes(q, k, index));
  void* workspace = allocate(workspace_bytes);

  /// Enqueues the stages. Never waits or allocates, so it can be captured as it is.
  void enqueue(cudaStream_t stream) const {
    mi::Exec exec;
    exec.stream = stream;
    exec.workspace = {workspace, workspace_bytes};
    mi::estimate_vertical_slash(q, k, columns, distances, {}, exec);
    mi::plan_vertical_slash(distances, seqlen, runs, run_count, exec);
    mi::sparse_attention(q, k, v, index, out, lse, {}, exec);
  }
};

/// Copies random inputs into the memory of `layer`.
void upload_inputs(const Layer& layer, unsigned seed, cudaStream_t stream) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  for (const auto* tensor : {&layer.q, &layer.k, &layer.v}) {
    std::vector<uint16_t> values(num_bytes(*tensor) / 2);
    for (uint16_t& bfloat16 : values) {
      const float number = normal(generator);
      std::memcpy(&bfloat16, reinterpret_cast<const char*>(&number) + 2, 2);  // The upper half.
    }
    check_cuda(cudaMemcpyAsync(tensor->c_tensor().data, values.data(), num_bytes(*tensor),
                               cudaMemcpyHostToDevice, stream));
    check_cuda(cudaStreamSynchronize(stream));  // `values` is freed after this.
  }
}

double value(uint16_t bfloat16) {
  float number = 0;
  std::memcpy(reinterpret_cast<char*>(&number) + 2, &bfloat16, 2);  // The upper half.
  return static_cast<double>(number);
}

/// Whether row block `row / 64` of a head attends each of the keys [0, row], by columns and runs.
std::vector<bool> attended_keys(int64_t row, const int32_t* columns, int64_t num_columns,
                                const int32_t* runs, int32_t run_count) {
  std::vector<bool> attended(static_cast<std::size_t>(row + 1));
  for (int64_t i = 0; i < num_columns; ++i) {
    if (columns[i] >= 0 && columns[i] <= row) attended[columns[i]] = true;
  }
  const int64_t end = row / 64 * 64 + 64;
  for (int32_t run = 0; run < run_count; ++run) {
    const int64_t first = std::max<int64_t>(end - runs[2 * run + 1], 0);
    const int64_t last = std::min(end - runs[2 * run] - 1, row);
    for (int64_t j = first; j <= last; ++j) attended[j] = true;
  }
  return attended;
}

/// Checks sampled rows by the definition: softmax over the keys that the index selects.
bool verify(const char* what, const Layer& layer) {
  const auto q = download<uint16_t>(layer.q), k = download<uint16_t>(layer.k),
             v = download<uint16_t>(layer.v), out = download<uint16_t>(layer.out);
  const auto columns = download<int32_t>(layer.columns), runs = download<int32_t>(layer.runs),
             run_count = download<int32_t>(layer.run_count);
  const auto lse = download<float>(layer.lse);
  constexpr int64_t kSamples = 96;
  double worst = 0, num_attended = 0, num_visible = 0;
  bool right = true;
  const auto check = [&](double error, double bound) {
    worst = std::max(worst, error / bound);
    right = right && error <= bound;  // False for NaN.
  };
  for (int64_t sample = 0; sample < kSamples; ++sample) {
    const int64_t row = (layer.seqlen - 1) * sample / (kSamples - 1);
    const int64_t head = sample % layer.num_heads_q;
    const int64_t head_kv = head * layer.num_heads_kv / layer.num_heads_q;
    const auto attended = attended_keys(row, &columns[head * layer.num_columns], layer.num_columns,
                                        &runs[head * layer.max_runs * 2], run_count[head]);
    const int64_t query = (row * layer.num_heads_q + head) * kHeadDim;
    double sum = 0, want[kHeadDim] = {}, magnitude[kHeadDim] = {};
    for (int64_t j = 0; j <= row; ++j) {
      if (!attended[j]) continue;
      const int64_t key = (j * layer.num_heads_kv + head_kv) * kHeadDim;
      double score = 0;
      for (int64_t d = 0; d < kHeadDim; ++d) score += value(q[query + d]) * value(k[key + d]);
      const double p = std::exp(score / std::sqrt(kHeadDim));  // Scores are too small to overflow.
      sum += p;
      for (int64_t d = 0; d < kHeadDim; ++d) want[d] += p * value(v[key + d]);
      for (int64_t d = 0; d < kHeadDim; ++d) magnitude[d] += p * std::fabs(value(v[key + d]));
      ++num_attended;
    }
    num_visible += static_cast<double>(row + 1);
    for (int64_t d = 0; d < kHeadDim; ++d) {  // p and the result are rounded to bfloat16.
      check(std::fabs(value(out[query + d]) - want[d] / sum), 2. / 128 * magnitude[d] / sum);
    }
    // All float32. Missing one key of 4096 would make 2.4e-4.
    check(std::fabs(lse[head * layer.seqlen + row] - std::log(sum)), 2e-4);
  }
  std::printf("%s: %.0f %% of keys attended, largest error / bound %.3f: %s\n", what,
              100 * num_attended / num_visible, worst, right ? "ok" : "WRONG");
  return right;
}

int main(int argc, char** argv) try {
  const auto size = [&](int i, int64_t usual) { return argc > i ? std::atol(argv[i]) : usual; };
  // The sizes of workspaces need no memory. The first call throws if the library can use no GPU.
  const mi::TensorView token(nullptr, mi::DType::kBFloat16, {1, 1, 1, kHeadDim}, kGpu);
  mi::estimate_vertical_slash_workspace_bytes(token, token);
  const Layer layer(size(1, 4096), size(2, 32), size(3, 8));
  cudaStream_t stream = nullptr;
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const std::unique_ptr<CUstream_st, decltype(&cudaStreamDestroy)> owner(stream, cudaStreamDestroy);
  upload_inputs(layer, /*seed=*/1, stream);
  layer.enqueue(stream);
  check_cuda(cudaStreamSynchronize(stream));
  const bool right = verify("enqueued", layer);
  cudaGraph_t graph = nullptr;  // Replays with the same pointers and sizes.
  cudaGraphExec_t executable = nullptr;
  check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  layer.enqueue(stream);
  check_cuda(cudaStreamEndCapture(stream, &graph));
  check_cuda(cudaGraphInstantiate(&executable, graph, /*flags=*/0));
  check_cuda(cudaGraphDestroy(graph));
  upload_inputs(layer, /*seed=*/2, stream);
  check_cuda(cudaGraphLaunch(executable, stream));
  check_cuda(cudaStreamSynchronize(stream));
  check_cuda(cudaGraphExecDestroy(executable));
  return verify("replayed", layer) && right ? 0 : 1;
} catch (const mi::Error& error) {
  std::fprintf(stderr, "minference: %s\n", error.what());
  const mi::ErrorCode code = error.code();  // kUnsupported: built without CUDA.
  const bool no_gpu = code >= mi::ErrorCode::kNoDevice && code <= mi::ErrorCode::kArchNotBuilt;
  return no_gpu || code == mi::ErrorCode::kUnsupported ? 77 : 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
