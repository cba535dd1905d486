// The work given to a capturing stream, which a graph runs each time it is launched.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <vector>

/// A launch of the graph runs the work in the order of capture.
struct CUgraph_st {
  std::vector<std::function<cudaError_t(cudaStream_t)>> work;
};

struct CUstream_st {
  int device;
  std::unique_ptr<CUgraph_st> capture;  // Null unless capturing.
};

namespace simt::engine {

/// The graph that work enqueued on `stream` goes into; null if it runs now.
CUgraph_st* capture_of(cudaStream_t stream);

bool is_default(cudaStream_t stream);

}  // namespace simt::engine
