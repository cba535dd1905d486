// Streams do at once what they are given, unless they are captured into a graph.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

namespace ptxsim::runtime {

/// Does `work` now; or adds it to the graph that `stream` is captured into. `work` returns an error
/// of its own.
cudaError_t enqueue(cudaStream_t stream, std::function<cudaError_t()> work);

/// cudaErrorInvalidResourceHandle for a stream that does not exist, or of another device than the
/// current one.
cudaError_t stream_error(cudaStream_t stream);

}  // namespace ptxsim::runtime
