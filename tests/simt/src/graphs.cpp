// CUDA graphs: captured from one stream, replayed in order. No other stream joins a capture, and a
// call that may not be captured fails without ending it.
// SPDX-License-Identifier: Apache-2.0
#include "graphs.h"

#include <utility>

#include "runtime.h"

struct CUgraphExec_st {
  CUgraph_st graph;
};

CUgraph_st* simt::engine::capture_of(cudaStream_t stream) {
  return is_default(stream) ? nullptr : stream->capture.get();
}

using simt::engine::set_last_error;
using simt::engine::stream_error;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const cudaError_t error = stream_error(stream);
  if (error != cudaSuccess) return set_last_error(error);
  if (simt::engine::is_default(stream)) return set_last_error(cudaErrorStreamCaptureUnsupported);
  if (stream->capture != nullptr) return set_last_error(cudaErrorIllegalState);
  if (mode > cudaStreamCaptureModeRelaxed) return set_last_error(cudaErrorInvalidValue);
  stream->capture = std::make_unique<CUgraph_st>();
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const cudaError_t error = stream_error(stream);
  if (error != cudaSuccess) return set_last_error(error);
  if (simt::engine::capture_of(stream) == nullptr) return set_last_error(cudaErrorIllegalState);
  *graph = stream->capture.release();
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long) {
  if (executable == nullptr || graph == nullptr) return set_last_error(cudaErrorInvalidValue);
  *executable = new CUgraphExec_st{*graph};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  cudaError_t error = stream_error(stream);
  if (error == cudaSuccess && executable == nullptr) error = cudaErrorInvalidValue;
  // A graph inside a graph is not emulated.
  if (error == cudaSuccess && simt::engine::capture_of(stream) != nullptr) {
    error = cudaErrorStreamCaptureUnsupported;
  }
  if (error != cudaSuccess) return set_last_error(error);
  for (const auto& work : executable->graph.work) {
    error = work(stream);
    if (error != cudaSuccess) return set_last_error(error);
  }
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  if (executable == nullptr) return set_last_error(cudaErrorInvalidValue);
  delete executable;
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  if (graph == nullptr) return set_last_error(cudaErrorInvalidValue);
  delete graph;
  return cudaSuccess;
}
