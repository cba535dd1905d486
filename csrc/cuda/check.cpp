// CUDA errors become Error: see check.h.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/check.h"

namespace minference {
namespace {

[[noreturn]] void throw_cuda_error(minf_status status, const char* what, cudaError_t error) {
  // Clear it: an error that is not sticky must not fail the next, unrelated call.
  cudaGetLastError();
  detail::throw_error(
      status, detail::concat(what, ": ", cudaGetErrorName(error), ": ", cudaGetErrorString(error)));
}

}  // namespace

void check_launch(const char* kernel, cudaError_t error) {
  if (error != cudaSuccess) throw_cuda_error(MINF_ERROR_LAUNCH_FAILED, kernel, error);
}

void detail::check_cuda(cudaError_t error, const char* call) {
  if (error != cudaSuccess) throw_cuda_error(MINF_ERROR_CUDA, call, error);
}

}  // namespace minference
