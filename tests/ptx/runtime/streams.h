// Streams run work at once, unless they are captured into a graph.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

namespace ptxsim::runtime {

/// Runs `work` now, or adds it to the graph that `stream` is captured into. `work` returns its own
/// error.
cudaError_t enqueue(cudaStream_t stream, std::function<cudaError_t()> work);

/// cudaErrorInvalidResourceHandle for a stream that does not exist, or that belongs to another
/// device than the current one.
cudaError_t stream_error(cudaStream_t stream);

}  // namespace ptxsim::runtime
