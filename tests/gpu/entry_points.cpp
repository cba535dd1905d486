// Every entry point of the CUDA backend on small odd shapes, in memory of exactly the size asked
// for: made to be run under compute-sanitizer, where each read or write past an end shows.
//
// By itself it checks what only a GPU can show: the same bits in every run, and from a graph that
// captured the calls (which proves that they neither wait nor allocate); and almost the same lists
// as the CPU backend, whose scores differ by rounding. Exit status: 0 good, 1 not, 77 no GPU.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <iterator>
#include <stdexcept>
#include <string>

#include "case.h"
#include "cuda/check.h"
#include "minference/minference.h"

namespace minference::gpu_test {
namespace {

constexpr int kExitNoGpu = 77;

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
  double mass = 1;  // Budget of all three lists; 1: none.
};

// All padded head_dims, all kinds of ends: one row, one key over a block, chunks, GQA, batch. Then
// the kernels of rows longer than 16K scores, of block lists longer than 128, of budgets by mass.
constexpr Problem kProblems[] = {
    {1, 1, 1, 1, 1, 64, 1, 1, 1},
    {1, 65, 65, 2, 1, 64, 30, 65, 2},
    {2, 129, 700, 4, 2, 128, 100, 200, 5},
    {1, 1, 200, 3, 3, 96, 40, 120, 3},
    {1, 63, 1000, 8, 2, 256, 60, 130, 100},
    {1, 300, 300, 4, 4, 192, 299, 300, 4},
    {2, 64, 64, 4, 1, 8, 64, 64, 1},
    {1, 700, 4100, 5, 1, 80, 1000, 3000, 40},
    {1, 2500, 2500, 2, 2, 128, 35, 2400, 7},
    {1, 65, 17000, 2, 1, 64, 1000, 3000, 3},
    {1, 9000, 9000, 1, 1, 64, 200, 400, 140},
    {1, 65, 17000, 2, 1, 64, 1000, 3000, 3, 0.5},
    {1, 9000, 9000, 1, 1, 64, 200, 400, 140, 0.5},
    {1, 700, 700, 2, 1, 96, 300, 500, 7, 0.5},
};

void check(minf_status status) {
  if (status != MINF_OK) throw std::runtime_error(minf_last_error());
}

std::size_t element_bytes(minf_dtype dtype) {
  return dtype == MINF_INT64 ? 8 : dtype == MINF_INT32 ? 4 : 2;
}

/// Memory of exactly these bytes, on the device or the host, and a contiguous view of it.
class Buffer {
 public:
  Buffer(minf_device_type device, minf_dtype dtype, const std::vector<int64_t>& shape)
      : device_(device) {
    view_.dtype = dtype;
    view_.device_type = device;
    view_.ndim = static_cast<int32_t>(shape.size());
    int64_t stride = 1;
    for (std::size_t i = shape.size(); i-- > 0; stride *= shape[i]) {
      view_.shape[i] = shape[i];
      view_.stride[i] = stride;
    }
    bytes_ = static_cast<std::size_t>(stride) * element_bytes(dtype);
    if (device_ == MINF_DEVICE_CPU) {
      host_.resize(bytes_);
      view_.data = host_.data();
    } else {
      MINF_CUDA(cudaMalloc(&view_.data, bytes_));
    }
  }
  ~Buffer() {
    if (device_ == MINF_DEVICE_CUDA) cudaFree(view_.data);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  const minf_tensor* view() const { return &view_; }
  void* data() const { return view_.data; }
  std::size_t bytes() const { return bytes_; }

  /// Random elements between -1 and 1, the same on both devices.
  void fill(Random random) {
    std::vector<uint16_t> elements(bytes_ / 2);
    const Format format = view_.dtype == MINF_BFLOAT16 ? Format::kBFloat16 : Format::kFloat16;
    for (uint16_t& element : elements) {
      element = static_cast<uint16_t>(encode(random.uniform(), format));
    }
    MINF_CUDA(cudaMemcpy(view_.data, elements.data(), bytes_, cudaMemcpyDefault));
  }

  std::vector<int32_t> integers() const {
    std::vector<int32_t> values(bytes_ / 4);
    MINF_CUDA(cudaMemcpy(values.data(), view_.data, bytes_, cudaMemcpyDefault));
    return values;
  }

 private:
  minf_device_type device_;
  minf_tensor view_{};
  std::size_t bytes_ = 0;
  std::vector<std::byte> host_;
};

/// All stages of a problem on one device, with their outputs.
class Calls {
 public:
  Calls(minf_device_type device, const Problem& problem, minf_dtype dtype, cudaStream_t stream)
      : q_(device, dtype, {problem.batch, problem.seqlen_q, problem.num_heads_q, problem.head_dim}),
        k_(device, dtype,
           {problem.batch, problem.seqlen_k, problem.num_heads_kv, problem.head_dim}),
        columns_(device, MINF_INT32,
                 {problem.batch, problem.num_heads_q, clamped(problem, problem.vertical_size, 30)}),
        distances_(device, MINF_INT32,
                   {problem.batch, problem.num_heads_q, clamped(problem, problem.slash_size, 100)}),
        runs_(device, MINF_INT32,
              {problem.batch, problem.num_heads_q,
               minf_max_runs(clamped(problem, problem.slash_size, 100), problem.seqlen_k), 2}),
        run_count_(device, MINF_INT32, {problem.batch, problem.num_heads_q}),
        blocks_(device, MINF_INT32,
                {problem.batch, problem.num_heads_q, (problem.seqlen_q + 63) / 64, problem.top_k}),
        column_tiles_(device, MINF_INT64, {problem.batch, problem.num_heads_q}),
        block_tiles_(device, MINF_INT64, {problem.batch, problem.num_heads_q}),
        problem_(problem),
        vertical_workspace_(device, MINF_BFLOAT16, {vertical_bytes(stream) / 2}),
        block_workspace_(device, MINF_BFLOAT16, {block_bytes(stream) / 2}) {
    q_.fill(Random(/*seed=*/1));
    k_.fill(Random(/*seed=*/2));
  }

  void run(cudaStream_t stream) const {
    const minf_exec exec = exec_on(stream);
    const minf_vertical_slash_options by_scores = vertical_slash_options();
    const minf_block_sparse_options by_blocks = block_sparse_options();
    check(minf_estimate_vertical_slash(q_.view(), k_.view(), &by_scores, columns_.view(),
                                       distances_.view(), vertical_workspace_.data(),
                                       vertical_workspace_.bytes(), &exec));
    check(minf_plan_vertical_slash(distances_.view(), problem_.seqlen_k, runs_.view(),
                                   run_count_.view(), &exec));
    check(minf_estimate_block_sparse(q_.view(), k_.view(), &by_blocks, blocks_.view(),
                                     block_workspace_.data(), block_workspace_.bytes(), &exec));
    count(MINF_VERTICAL_SLASH, column_tiles_, exec);
    count(MINF_BLOCK_SPARSE, block_tiles_, exec);
  }

  std::vector<const Buffer*> outputs() const {
    return {&columns_, &distances_, &runs_, &run_count_, &blocks_, &column_tiles_, &block_tiles_};
  }
  /// Lists of ids, in the order of outputs().
  static constexpr std::size_t kIdLists[] = {0, 1, 4};

 private:
  static int64_t clamped(const Problem& problem, int64_t size, int64_t forced) {
    return std::min(problem.seqlen_k, std::max(size, forced));
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
  void count(minf_pattern_kind kind, const Buffer& tiles, const minf_exec& exec) const {
    // Of these kinds the lists say the rest; block-sparse demands a top_k all the same.
    const minf_pattern pattern = {
        .kind = kind, .a = kind == MINF_BLOCK_SPARSE ? 1 : 0, .b = 0, .c = 0};
    minf_sparse_index index{};
    index.struct_size = sizeof(index);
    index.patterns = &pattern;
    index.num_patterns = 1;
    index.vertical_index = *columns_.view();
    index.runs = *runs_.view();
    index.run_count = *run_count_.view();
    index.block_index = *blocks_.view();
    check(minf_count_key_tiles(problem_.batch, problem_.num_heads_q, problem_.seqlen_q,
                               problem_.seqlen_k, &index, tiles.view(), &exec));
  }
  int64_t vertical_bytes(cudaStream_t stream) const {
    const minf_exec exec = exec_on(stream);
    const minf_vertical_slash_options options = vertical_slash_options();
    std::size_t bytes = 0;
    check(minf_estimate_vertical_slash_workspace_bytes(q_.view(), k_.view(), &options, &exec,
                                                       &bytes));
    return static_cast<int64_t>(bytes);
  }
  int64_t block_bytes(cudaStream_t stream) const {
    const minf_exec exec = exec_on(stream);
    const minf_block_sparse_options options = block_sparse_options();
    std::size_t bytes = 0;
    check(
        minf_estimate_block_sparse_workspace_bytes(q_.view(), k_.view(), &options, &exec, &bytes));
    return static_cast<int64_t>(bytes);
  }

  Buffer q_;
  Buffer k_;
  Buffer columns_;
  Buffer distances_;
  Buffer runs_;
  Buffer run_count_;
  Buffer blocks_;
  Buffer column_tiles_;
  Buffer block_tiles_;
  Problem problem_;
  Buffer vertical_workspace_;
  Buffer block_workspace_;
};

using Results = std::vector<std::vector<int32_t>>;

Results results_of(const Calls& calls) {
  Results results;
  for (const Buffer* output : calls.outputs()) results.push_back(output->integers());
  return results;
}

void poison(const Calls& calls, int byte) {
  for (const Buffer* output : calls.outputs()) {
    MINF_CUDA(cudaMemset(output->data(), byte, output->bytes()));
  }
}

Results replayed(const Calls& calls, cudaStream_t stream) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  MINF_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  calls.run(stream);
  MINF_CUDA(cudaStreamEndCapture(stream, &graph));
  MINF_CUDA(cudaGraphInstantiate(&executable, graph, 0));
  poison(calls, /*byte=*/0x5a);
  MINF_CUDA(cudaGraphLaunch(executable, stream));
  MINF_CUDA(cudaGraphLaunch(executable, stream));  // State left behind would show.
  MINF_CUDA(cudaStreamSynchronize(stream));
  MINF_CUDA(cudaGraphExecDestroy(executable));
  MINF_CUDA(cudaGraphDestroy(graph));
  return results_of(calls);
}

/// Entries that the lists of the two have in common, as a share; lists of `size` lie one after the
/// other. Scores that differ by rounding swap single entries at the cut.
double agreement(std::vector<int32_t> a, std::vector<int32_t> b, int64_t size) {
  std::vector<int32_t> common;
  for (auto begin = int64_t{0}; begin < std::ssize(a); begin += size) {
    std::sort(a.begin() + begin, a.begin() + begin + size);
    std::sort(b.begin() + begin, b.begin() + begin + size);
    std::set_intersection(a.begin() + begin, a.begin() + begin + size, b.begin() + begin,
                          b.begin() + begin + size, std::back_inserter(common));
  }
  return static_cast<double>(common.size()) / static_cast<double>(a.size());
}

bool check_problem(const Problem& problem, minf_dtype dtype, cudaStream_t stream) {
  const Calls calls(MINF_DEVICE_CUDA, problem, dtype, stream);
  poison(calls, /*byte=*/0xa5);
  MINF_CUDA(cudaDeviceSynchronize());  // The stream does not wait for the default one.
  calls.run(stream);
  MINF_CUDA(cudaStreamSynchronize(stream));
  const Results first = results_of(calls);
  const bool same_bits = replayed(calls, stream) == first;

  const Calls on_cpu(MINF_DEVICE_CPU, problem, dtype, /*stream=*/nullptr);
  poison(on_cpu, /*byte=*/0xa5);
  on_cpu.run(/*stream=*/nullptr);
  const Results want = results_of(on_cpu);
  double lowest = 1;
  for (const std::size_t i : Calls::kIdLists) {
    const minf_tensor& list = *calls.outputs()[i]->view();
    lowest = std::min(lowest, agreement(first[i], want[i], list.shape[list.ndim - 1]));
  }
  const bool good = same_bits && lowest > 0.95;
  std::printf("%s %s: q [%lld, %lld, %lld, %lld], k [%lld, %lld]: graph %s, as on the CPU %.4f\n",
              good ? "ok    " : "FAILED", dtype == MINF_BFLOAT16 ? "bf16" : "fp16",
              static_cast<long long>(problem.batch), static_cast<long long>(problem.seqlen_q),
              static_cast<long long>(problem.num_heads_q), static_cast<long long>(problem.head_dim),
              static_cast<long long>(problem.seqlen_k),
              static_cast<long long>(problem.num_heads_kv), same_bits ? "same bits" : "OTHER BITS",
              lowest);
  return good;
}

int run() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    std::printf("no GPU: %s\n", cudaGetErrorString(error));
    return kExitNoGpu;
  }
  cudaStream_t stream = nullptr;
  MINF_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  int failed = 0;
  for (const Problem& problem : kProblems) {
    for (const minf_dtype dtype : {MINF_BFLOAT16, MINF_FLOAT16}) {
      try {
        if (!check_problem(problem, dtype, stream)) ++failed;
      } catch (const std::exception& exception) {
        std::printf("FAILED %s\n", exception.what());
        ++failed;
      }
      std::fflush(stdout);
    }
  }
  MINF_CUDA(cudaStreamDestroy(stream));
  std::printf("%d failed\n", failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace minference::gpu_test

int main() {
  try {
    return minference::gpu_test::run();
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
}
