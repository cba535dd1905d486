// minference.hpp on tensors in emulated device memory: statuses become codes, and no host memory is
// made up for a workspace that must be the device's.
// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "check.h"
#include "minference/minference.hpp"
#include "simt/simt.h"

namespace {

namespace mi = minference;

constexpr int64_t kSeqlen = 100, kHeads = 2, kDim = 64, kRowBlocks = 2, kTopK = 2;
constexpr mi::Device kCuda{mi::DeviceType::kCuda, 0};

/// Zeros in device memory, which the process keeps.
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

/// The code of the Error that `call` throws, if it throws one, whose text holds `text`.
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
  CHECK(code_of("attention on CUDA devices is not built yet", [&] {
          mi::prefill_attention(p.q, p.q, p.q, {mi::dense()}, out);
        }) == mi::ErrorCode::kUnsupported);
}

}  // namespace

int main() {
  test_workspace();
  test_codes();
  return minference::test::finish();
}
