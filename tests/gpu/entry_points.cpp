// Every entry point of the CUDA backend on small odd shapes, in memory of exactly the size asked
// for. It is made for compute-sanitizer, which sees each read or write past an end.
//
// By itself it checks what only a GPU can show: every run gives the same bits, and so does a graph
// that captured the calls (so they neither wait nor allocate) and is replayed on other inputs;
// lists agree with the CPU backend's up to scores that round differently; and on the GPU's own
// lists attention agrees with the CPU's. Exit status: 0 good, 1 not, 77 no GPU.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "buffer.h"
#include "calls.h"
#include "case.h"
#include "cuda/check.h"
#include "minference/minference.h"

namespace minference::gpu_test {
namespace {

constexpr int kExitNoGpu = 77;

// All padded head_dims and all kinds of ends: one row, one key over a block, chunks, GQA, batch.
// Then few rows over many keys, and the kernels for rows longer than 16K scores, for block lists
// longer than 128, and for budgets (top_p).
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
    {1, 1, 20000, 8, 1, 128, 500, 700, 50},
    {1, 65, 17000, 2, 1, 64, 1000, 3000, 3},
    {1, 9000, 9000, 1, 1, 64, 200, 400, 140},
    {1, 65, 17000, 2, 1, 64, 1000, 3000, 3, 0.5},
    {1, 9000, 9000, 1, 1, 64, 200, 400, 140, 0.5},
    {1, 700, 700, 2, 1, 96, 300, 500, 7, 0.5},
};

using Results = std::vector<std::vector<std::byte>>;

Results results_of(const Calls& calls) {
  Results results;
  for (const Buffer* output : calls.outputs()) results.push_back(output->read<std::byte>());
  return results;
}

/// Fills outputs and work memory, so that unwritten or uninitialised parts show.
void poison(const Calls& calls, int byte) {
  std::vector<const Buffer*> buffers = calls.outputs();
  const std::vector<const Buffer*> workspaces = calls.workspaces();
  buffers.insert(buffers.end(), workspaces.begin(), workspaces.end());
  for (const Buffer* buffer : buffers) {
    if (buffer->bytes() > 0) MINF_CUDA(cudaMemset(buffer->data(), byte, buffer->bytes()));
  }
  MINF_CUDA(cudaDeviceSynchronize());  // The stream does not wait for the default one.
}

Results run(const Calls& calls, cudaStream_t stream) {
  poison(calls, /*byte=*/0xff);  // NaN in every floating-point format.
  calls.run(stream);
  MINF_CUDA(cudaStreamSynchronize(stream));
  return results_of(calls);
}

/// A CUDA graph that captured the calls.
class Graph {
 public:
  Graph(const Calls& calls, cudaStream_t stream) {
    cudaGraph_t graph = nullptr;
    MINF_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    calls.run(stream);
    MINF_CUDA(cudaStreamEndCapture(stream, &graph));
    MINF_CUDA(cudaGraphInstantiate(&executable_, graph, 0));
    MINF_CUDA(cudaGraphDestroy(graph));
  }
  ~Graph() { cudaGraphExecDestroy(executable_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  Results replay(const Calls& calls, cudaStream_t stream) const {
    poison(calls, /*byte=*/0x5a);
    MINF_CUDA(cudaGraphLaunch(executable_, stream));
    MINF_CUDA(cudaGraphLaunch(executable_, stream));  // Shows state that was left behind.
    MINF_CUDA(cudaStreamSynchronize(stream));
    return results_of(calls);
  }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

// ---- Against the CPU ------------------------------------------------------------------------

/// The share of entries that the lists of both have in common; lists of `size` lie one after the
/// other. Scores that round differently swap single entries at the cut.
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

/// The lowest agreement among the index lists.
double lists_agreement(const Calls& on_gpu, const Calls& on_cpu) {
  double lowest = 1;
  for (std::size_t i = 0; i < on_gpu.id_lists().size(); ++i) {
    const Buffer& got = *on_gpu.id_lists()[i];
    const Buffer& want = *on_cpu.id_lists()[i];
    const int64_t size = got.view()->shape[got.view()->ndim - 1];
    lowest = std::min(lowest, agreement(got.read<int32_t>(), want.read<int32_t>(), size));
  }
  return lowest;
}

/// The largest error, in units of `bound`; infinite if only one side has a NaN or infinity.
double error_in_bounds(const Buffer& got, const Buffer& want, double bound, bool relative) {
  const std::vector<double> g = got.numbers();
  const std::vector<double> w = want.numbers();
  double worst = 0;
  for (std::size_t i = 0; i < g.size(); ++i) {
    if (g[i] == w[i]) continue;
    const double scale = relative ? std::max(1.0, std::fabs(w[i])) : 1;
    const double error = std::fabs(g[i] - w[i]) / (bound * scale);
    worst = std::isfinite(error) ? std::max(worst, error) : std::numeric_limits<double>::infinity();
  }
  return worst;
}

/// The largest error of attention on the GPU, in units of what rounding allows; infinite if a tile
/// count differs. `on_cpu` has attended the same lists.
///
/// |v| <= 1, so each side's out is within 2 eps of the exact one, and its lse within 1e-5, absolute
/// or relative. Merging rounds once more on each side, by eps / 2, and turns the error of an lse,
/// at most 20 here, into a relative error of a weight of the same size: on both sides, of both
/// parts.
double attention_error(const Calls& on_gpu, const Calls& on_cpu, minf_dtype dtype) {
  const double eps = std::ldexp(1.0, dtype == MINF_BFLOAT16 ? -7 : -10);
  const double out_bound = 4 * eps;
  const double lse_bound = 2e-5;
  const double merged_bound = out_bound + eps + 4 * 20 * lse_bound;
  double worst = std::max(
      error_in_bounds(on_gpu.merged(), on_cpu.merged(), merged_bound, /*relative=*/false),
      error_in_bounds(on_gpu.merged_lse(), on_cpu.merged_lse(), 2 * lse_bound, /*relative=*/true));
  auto want = on_cpu.attended().begin();
  for (const Attended& got : on_gpu.attended()) {
    for (const double error :
         {error_in_bounds(got.out, want->out, out_bound, /*relative=*/false),
          error_in_bounds(got.whole_out, want->whole_out, out_bound, /*relative=*/false),
          error_in_bounds(got.lse, want->lse, lse_bound, /*relative=*/true),
          error_in_bounds(got.whole_lse, want->whole_lse, lse_bound, /*relative=*/true)}) {
      worst = std::max(worst, error);
    }
    const bool same_tiles = got.tiles.read<int64_t>() == want->tiles.read<int64_t>() &&
                            got.whole_tiles.read<int64_t>() == want->whole_tiles.read<int64_t>();
    if (!same_tiles) worst = std::numeric_limits<double>::infinity();
    ++want;
  }
  return worst;
}

/// Runs attention on the CPU with the lists that the GPU made, so that it does not matter what they
/// select.
void attend_lists_of(const Calls& on_gpu, const Calls& on_cpu) {
  for (std::size_t i = 0; i < on_gpu.lists().size(); ++i) {
    on_cpu.lists()[i]->write(on_gpu.lists()[i]->read<std::byte>());
  }
  on_cpu.attend(/*stream=*/nullptr, /*whole=*/false);
}

// ---- One problem -----------------------------------------------------------------------------

bool check_problem(const Problem& problem, minf_dtype dtype, cudaStream_t stream) {
  const Calls on_gpu(MINF_DEVICE_CUDA, problem, dtype, stream);
  const Results first = run(on_gpu, stream);

  const Calls on_cpu(MINF_DEVICE_CPU, problem, dtype, /*stream=*/nullptr);
  on_cpu.index(/*stream=*/nullptr);
  const double lowest = lists_agreement(on_gpu, on_cpu);
  attend_lists_of(on_gpu, on_cpu);
  const double error = attention_error(on_gpu, on_cpu, dtype);

  const Graph graph(on_gpu, stream);
  bool same_bits = run(on_gpu, stream) == first && graph.replay(on_gpu, stream) == first;
  on_gpu.fill_inputs(/*seed=*/2);
  const Results replayed = graph.replay(on_gpu, stream);
  same_bits = same_bits && replayed != first && replayed == run(on_gpu, stream);

  const bool good = same_bits && lowest > 0.95 && error <= 1;
  std::printf(
      "%s %s: q [%lld, %lld, %lld, %lld], k [%lld, %lld]: graph %s, lists as on the CPU %.4f, "
      "attention off by %.3f of the bound\n",
      good ? "ok    " : "FAILED", dtype == MINF_BFLOAT16 ? "bf16" : "fp16",
      static_cast<long long>(problem.batch), static_cast<long long>(problem.seqlen_q),
      static_cast<long long>(problem.num_heads_q), static_cast<long long>(problem.head_dim),
      static_cast<long long>(problem.seqlen_k), static_cast<long long>(problem.num_heads_kv),
      same_bits ? "same bits" : "OTHER BITS", lowest, error);
  return good;
}

int count_failures(bool only_small, cudaStream_t stream) {
  constexpr int64_t kSmallScores = 1'200'000;  // Includes the longest rows of scores.
  constexpr int64_t kTinyScores = 100'000;
  int failed = 0;
  for (const Problem& problem : kProblems) {
    const int64_t scores = problem.seqlen_q * problem.seqlen_k;
    if (only_small && scores > kSmallScores) continue;
    for (const minf_dtype dtype : {MINF_BFLOAT16, MINF_FLOAT16}) {
      if (only_small && scores > kTinyScores && dtype == MINF_FLOAT16) continue;
      try {
        if (!check_problem(problem, dtype, stream)) ++failed;
      } catch (const std::exception& exception) {
        std::printf("FAILED %s\n", exception.what());
        ++failed;
      }
      std::fflush(stdout);
    }
  }
  return failed;
}

int run_all(const std::vector<std::string>& backends, bool only_small) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    std::printf("no GPU: %s\n", cudaGetErrorString(error));
    return kExitNoGpu;
  }
  cudaStream_t stream = nullptr;
  MINF_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  int failed = 0;
  for (const std::string& backend : backends) {
    if (minf_set_backend(backend.c_str()) != MINF_OK) {
      std::printf("not by %s: %s\n", backend.c_str(), minf_last_error());
      continue;
    }
    std::printf("by %s\n", backend.c_str());
    failed += count_failures(only_small, stream);
  }
  MINF_CUDA(cudaStreamDestroy(stream));
  std::printf("%d failed\n", failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace minference::gpu_test

/// Arguments: the backends (default: both); "small" leaves out what takes an interpreter long:
/// problems with many scores, and all but a few in both dtypes.
int main(int argc, char** argv) {
  try {
    std::vector<std::string> backends(argv + 1, argv + argc);
    const bool only_small = std::erase(backends, "small") != 0;
    if (backends.empty()) backends = {"sm80", "sm90"};
    return minference::gpu_test::run_all(backends, only_small);
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
}
