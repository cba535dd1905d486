// CUDA errors become Error: with the call that failed, and CUDA's own name and text for it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include "core/check.h"

namespace minference {

/// @throws Error{MINF_ERROR_LAUNCH_FAILED} unless `error` is cudaSuccess.
void check_launch(const char* kernel, cudaError_t error);

namespace detail {
void check_cuda(cudaError_t error, const char* call);
}

}  // namespace minference

/// A CUDA runtime call that must succeed. @throws Error{MINF_ERROR_CUDA}
#define MINF_CUDA(call) ::minference::detail::check_cuda((call), #call)
