// minference.hpp on tensors in emulated device memory, as its user meets it: a status becomes an
// error code, host memory never replaces a workspace that must be on the device, and all calls give
// what they give on the CPU.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "minference/minference.hpp"
#include "simt/simt.h"

namespace {

namespace mi = minference;

constexpr int64_t kSeqlen = 100, kHeads = 2, kDim = 64, kRowBlocks = 2, kTopK = 2;
constexpr mi::Device kCuda{mi::DeviceType::kCuda, 0};

/// Zeros in device memory, never freed.
void* device_zeros(std::size_t bytes) {
  void* data = nullptr;
  CHECK(cudaMalloc(&data, bytes) == cudaSuccess && cudaMemset(data, 0, bytes) == cudaSuccess);
  return data;
}

struct Problem {
  mi::TensorView q{device_zeros(2 * kSeqlen * kHeads * kDim),
                   mi::DType::kBFloat16,
                   {1, kSeqlen, kHeads, kDim},
                   kCuda};
  mi::TensorView blocks{device_zeros(4 * kHeads * kRowBlocks * kTopK),
                        mi::DType::kInt32,
                        {1, kHeads, kRowBlocks, kTopK},
                        kCuda};
  mi::Exec exec;

  Problem() {
    exec.workspace.bytes = mi::estimate_block_sparse_workspace_bytes(q, q);
    exec.workspace.data = device_zeros(exec.workspace.bytes);
  }
  void estimate() const { mi::estimate_block_sparse(q, q, blocks, {}, exec); }
};

/// The code of the Error that `call` throws, if any; its text must hold `text`.
template <typename Call>
std::optional<mi::ErrorCode> code_of(const std::string& text, const Call& call) {
  try {
    call();
  } catch (const mi::Error& error) {
    CHECK(std::string(error.what()).find(text) != std::string::npos, error.what());
    return error.code();
  }
  return std::nullopt;
}

void test_workspace() {
  Problem p;
  CHECK(p.q.device().type == mi::DeviceType::kCuda);
  CHECK(!code_of("", [&] { p.estimate(); }));
  const auto* first = static_cast<const int32_t*>(p.blocks.c_tensor().data);
  CHECK(first[0] == 0 && first[1] == -1 && first[2] == 0 && first[3] == 1, "both blocks forced");

  std::vector<std::byte> host(p.exec.workspace.bytes);
  p.exec.workspace.data = host.data();
  CHECK(code_of("workspace: expected memory of cuda:0", [&] { p.estimate(); }) ==
        mi::ErrorCode::kWrongDevice);
  p.exec.workspace = {};
  CHECK(code_of("workspace: expected at least", [&] { p.estimate(); }) ==
        mi::ErrorCode::kWorkspaceTooSmall);
}

void test_codes() {
  const Problem p;
  simt::machine().next_launch_error = cudaErrorLaunchOutOfResources;
  CHECK(code_of("cudaErrorLaunchOutOfResources", [&] { p.estimate(); }) ==
        mi::ErrorCode::kLaunchFailed);
  const mi::TensorView out(device_zeros(2 * kSeqlen * kHeads * kDim), mi::DType::kBFloat16,
                           {1, kSeqlen, kHeads, kDim}, kCuda);
  CHECK(code_of("workspace: expected at least", [&] {
          mi::prefill_attention(p.q, p.q, p.q, {mi::dense()}, out);
        }) == mi::ErrorCode::kWorkspaceTooSmall);
  const mi::TensorView floats(p.q.c_tensor().data, mi::DType::kFloat32, {1, 50, kHeads, kDim},
                              kCuda);
  const mi::TensorView float_out(out.c_tensor().data, mi::DType::kFloat32, {1, 50, kHeads, kDim},
                                 kCuda);
  CHECK(code_of("q: expected dtype bfloat16 or float16 on CUDA devices, got float32", [&] {
          mi::prefill_attention(floats, floats, floats, {mi::dense()}, float_out);
        }) == mi::ErrorCode::kUnsupported);
}

// ---- All calls, on the CPU and on the GPU ------------------------------------------------------

/// Elements in the memory of a device.
template <typename T>
class Array {
 public:
  Array(mi::Device device, std::vector<T> values) : host_(std::move(values)) {
    if (device.type == mi::DeviceType::kCpu) return;
    CHECK(cudaMalloc(&device_, bytes()) == cudaSuccess &&
          cudaMemcpy(device_, host_.data(), bytes(), cudaMemcpyHostToDevice) == cudaSuccess);
  }
  ~Array() {
    if (device_ != nullptr) cudaFree(device_);
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  void* data() { return device_ != nullptr ? device_ : host_.data(); }
  std::vector<T> values() const {
    std::vector<T> copy = host_;
    if (device_ != nullptr) {
      CHECK(cudaMemcpy(copy.data(), device_, bytes(), cudaMemcpyDeviceToHost) == cudaSuccess);
    }
    return copy;
  }

 private:
  std::size_t bytes() const { return host_.size() * sizeof(T); }

  std::vector<T> host_;
  void* device_ = nullptr;
};

float from_bf16(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value = 0;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

/// Multiples of 1/64 in [-2, 2]: bfloat16 holds them.
std::vector<uint16_t> random_bf16(int64_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_int_distribution<int> steps(-128, 128);
  std::vector<uint16_t> values(static_cast<std::size_t>(count));
  for (uint16_t& value : values) {
    const float step = static_cast<float>(steps(generator)) / 64;
    uint32_t bits = 0;
    std::memcpy(&bits, &step, sizeof bits);
    value = static_cast<uint16_t>(bits >> 16);
  }
  return values;
}

template <typename T>
std::vector<T> sevens(int64_t count) {
  return std::vector<T>(static_cast<std::size_t>(count), T{7});
}

constexpr int64_t kBatch = 2, kSeqlenQ = 100, kSeqlenK = 150, kHeadsQ = 4, kHeadsKv = 2, kDimV = 80;
constexpr int64_t kColumns = 35, kDistances = 110, kBlocks = 2;

/// The results of one call, or of a chain of them.
struct Results {
  std::vector<uint16_t> out;
  std::vector<float> lse;
  std::vector<int64_t> tiles;
};

/// A user's program on one device: its tensors, its stream, its work memory.
class Program {
 public:
  explicit Program(mi::Device device) : device_(device) {
    if (device.type == mi::DeviceType::kCpu) return;
    cudaStream_t stream = nullptr;
    CHECK(cudaStreamCreate(&stream) == cudaSuccess);
    exec_.stream = stream;
  }
  ~Program() {
    if (exec_.stream != nullptr) cudaStreamDestroy(static_cast<cudaStream_t>(exec_.stream));
    if (exec_.workspace.data != nullptr) cudaFree(exec_.workspace.data);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  Results prefill(const std::vector<mi::Pattern>& patterns) {
    mi::PrefillOptions options;
    options.lse = lse_;
    options.tiles = tiles_;
    reserve(mi::prefill_attention_workspace_bytes(q_, k_, patterns, exec_));
    mi::prefill_attention(q_, k_, v_, patterns, out_, options, exec_);
    return results();
  }

  Results stages(const std::vector<mi::Pattern>& patterns) {
    reserve(mi::estimate_vertical_slash_workspace_bytes(q_, k_, {}, exec_));
    mi::estimate_vertical_slash(q_, k_, columns_, distances_, {}, exec_);
    reserve(mi::estimate_block_sparse_workspace_bytes(q_, k_, {}, exec_));
    mi::estimate_block_sparse(q_, k_, blocks_, {}, exec_);
    mi::plan_vertical_slash(distances_, kSeqlenK, runs_, run_count_, exec_);
    const mi::SparseIndex index{patterns, columns_, runs_, run_count_, blocks_};
    mi::count_key_tiles(kBatch, kHeadsQ, kSeqlenQ, kSeqlenK, index, tiles_, exec_);
    reserve(mi::sparse_attention_workspace_bytes(q_, k_, index, exec_));
    mi::sparse_attention(q_, k_, v_, index, out_, lse_, {}, exec_);
    return results();
  }

  /// Merges two results as if their keys were disjoint.
  Results merge(const Results& a, const Results& b) {
    Array<uint16_t> out_a(device_, a.out), out_b(device_, b.out);
    Array<float> lse_a(device_, a.lse), lse_b(device_, b.lse);
    const auto out_like = [&](Array<uint16_t>& array) {
      return mi::ConstTensorView(array.data(), mi::DType::kBFloat16,
                                 {kBatch, kSeqlenQ, kHeadsQ, kDimV}, device_);
    };
    const auto lse_like = [&](Array<float>& array) {
      return mi::ConstTensorView(array.data(), mi::DType::kFloat32, {kBatch, kHeadsQ, kSeqlenQ},
                                 device_);
    };
    mi::merge_attention(out_like(out_a), lse_like(lse_a), out_like(out_b), lse_like(lse_b), out_,
                        lse_, exec_);
    return results();
  }

 private:
  /// On the CPU the library allocates its own.
  void reserve(std::size_t bytes) {
    if (device_.type == mi::DeviceType::kCpu) return;
    if (exec_.workspace.data != nullptr) cudaFree(exec_.workspace.data);
    exec_.workspace = {nullptr, bytes};
    CHECK(bytes > 0 && cudaMalloc(&exec_.workspace.data, bytes) == cudaSuccess);
  }

  Results results() const {
    if (exec_.stream != nullptr) {
      CHECK(cudaStreamSynchronize(static_cast<cudaStream_t>(exec_.stream)) == cudaSuccess);
    }
    return {out_data_.values(), lse_data_.values(), tiles_data_.values()};
  }

  template <typename T>
  mi::TensorView view(Array<T>& array, mi::DType dtype, const mi::Dims& shape) const {
    return {array.data(), dtype, shape, device_};
  }

  mi::Device device_;
  mi::Exec exec_;
  Array<uint16_t> q_data_{device_, random_bf16(kBatch* kSeqlenQ* kHeadsQ* kDim, 1)};
  Array<uint16_t> k_data_{device_, random_bf16(kBatch* kSeqlenK* kHeadsKv* kDim, 2)};
  Array<uint16_t> v_data_{device_, random_bf16(kBatch* kSeqlenK* kHeadsKv* kDimV, 3)};
  Array<uint16_t> out_data_{device_, sevens<uint16_t>(kBatch* kSeqlenQ* kHeadsQ* kDimV)};
  Array<float> lse_data_{device_, sevens<float>(kBatch* kHeadsQ* kSeqlenQ)};
  Array<int64_t> tiles_data_{device_, sevens<int64_t>(kBatch* kHeadsQ)};
  Array<int32_t> columns_data_{device_, sevens<int32_t>(kBatch* kHeadsQ* kColumns)};
  Array<int32_t> distances_data_{device_, sevens<int32_t>(kBatch* kHeadsQ* kDistances)};
  Array<int32_t> blocks_data_{device_, sevens<int32_t>(kBatch* kHeadsQ* kRowBlocks* kBlocks)};
  int64_t max_runs_ = mi::max_runs(kDistances, kSeqlenK);
  Array<int32_t> runs_data_{device_, sevens<int32_t>(kBatch* kHeadsQ* max_runs_ * 2)};
  Array<int32_t> run_count_data_{device_, sevens<int32_t>(kBatch* kHeadsQ)};

  mi::TensorView q_ = view(q_data_, mi::DType::kBFloat16, {kBatch, kSeqlenQ, kHeadsQ, kDim});
  mi::TensorView k_ = view(k_data_, mi::DType::kBFloat16, {kBatch, kSeqlenK, kHeadsKv, kDim});
  mi::TensorView v_ = view(v_data_, mi::DType::kBFloat16, {kBatch, kSeqlenK, kHeadsKv, kDimV});
  mi::TensorView out_ = view(out_data_, mi::DType::kBFloat16, {kBatch, kSeqlenQ, kHeadsQ, kDimV});
  mi::TensorView lse_ = view(lse_data_, mi::DType::kFloat32, {kBatch, kHeadsQ, kSeqlenQ});
  mi::TensorView tiles_ = view(tiles_data_, mi::DType::kInt64, {kBatch, kHeadsQ});
  mi::TensorView columns_ = view(columns_data_, mi::DType::kInt32, {kBatch, kHeadsQ, kColumns});
  mi::TensorView distances_ =
      view(distances_data_, mi::DType::kInt32, {kBatch, kHeadsQ, kDistances});
  mi::TensorView blocks_ =
      view(blocks_data_, mi::DType::kInt32, {kBatch, kHeadsQ, kRowBlocks, kBlocks});
  mi::TensorView runs_ = view(runs_data_, mi::DType::kInt32, {kBatch, kHeadsQ, max_runs_, 2});
  mi::TensorView run_count_ = view(run_count_data_, mi::DType::kInt32, {kBatch, kHeadsQ});
};

/// Attention errs by at most 2 eps max |v| on each side; merging rounds once more.
void check_close(const char* what, const Results& got, const Results& want) {
  constexpr float kEpsilon = 0x1p-7f, kMaxValue = 2;
  float out_error = 0, lse_error = 0;
  for (std::size_t i = 0; i < want.out.size(); ++i) {
    out_error = std::max(out_error, std::abs(from_bf16(got.out[i]) - from_bf16(want.out[i])));
    CHECK(std::isfinite(from_bf16(got.out[i])), what, i);
  }
  for (std::size_t i = 0; i < want.lse.size(); ++i) {
    lse_error = std::max(lse_error, std::abs(got.lse[i] - want.lse[i]));
    CHECK(std::isfinite(got.lse[i]), what, i);
  }
  CHECK(out_error <= 2 * (2 * kEpsilon * kMaxValue), what, "out differs by", out_error);
  CHECK(lse_error <= 2e-5f, what, "lse differs by", lse_error);
  CHECK(got.tiles == want.tiles, what);
}

bool same(const Results& a, const Results& b) {
  return a.out == b.out && a.lse == b.lse && a.tiles == b.tiles;
}

void test_all_calls() {
  const std::vector<mi::Pattern> patterns = {mi::vertical_slash(kColumns, kDistances), mi::dense(),
                                             mi::block_sparse(kBlocks), mi::tri_shape(8, 32, 9)};
  Program cpu({}), gpu(kCuda);
  const Results want = cpu.prefill(patterns), got = gpu.prefill(patterns);
  check_close("prefill", got, want);
  CHECK(same(cpu.stages(patterns), want), "the CPU's stages one by one");
  CHECK(same(gpu.stages(patterns), got), "the stages one by one");
  const Results other = cpu.prefill({mi::a_shape(4, 60)});
  check_close("one pattern for all", gpu.prefill({mi::a_shape(4, 60)}), other);
  check_close("merge", gpu.merge(want, other), cpu.merge(want, other));
}

}  // namespace

int main() {
  simt::options().max_shared_bytes = std::size_t{227} << 10;  // The machine has a Hopper GPU.
  test_workspace();
  test_codes();
  test_all_calls();
  return minference::test::finish();
}
