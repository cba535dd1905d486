// SPDX-License-Identifier: Apache-2.0
#include "streams.h"

#include <chrono>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "errors.h"
#include "ptxsim/runtime.h"

namespace ptxsim::runtime {
namespace {

using Clock = std::chrono::steady_clock;

struct Graph {
  std::vector<std::function<cudaError_t()>> nodes;
};
struct Stream {
  int device = 0;
  Graph* capturing = nullptr;
};

std::mutex streams_mutex;
std::set<Stream*> streams;

bool is_default(cudaStream_t stream) {
  return stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread;
}

Stream* find_stream(cudaStream_t handle) {
  const std::lock_guard lock(streams_mutex);
  auto* stream = reinterpret_cast<Stream*>(handle);
  return streams.contains(stream) ? stream : nullptr;
}

}  // namespace

cudaError_t stream_error(cudaStream_t handle) {
  if (const cudaError_t error = machine_error(); error != cudaSuccess) return error;
  if (is_default(handle)) return cudaSuccess;
  const Stream* stream = find_stream(handle);
  const bool ours = stream != nullptr && stream->device == machine().current_device;
  return ours ? cudaSuccess : cudaErrorInvalidResourceHandle;
}

cudaError_t enqueue(cudaStream_t handle, std::function<cudaError_t()> work) {
  if (const cudaError_t error = stream_error(handle); error != cudaSuccess) return failed(error);
  if (!is_default(handle)) {
    Stream* stream = find_stream(handle);
    if (stream->capturing != nullptr) {
      stream->capturing->nodes.push_back(std::move(work));
      return cudaSuccess;
    }
  }
  if (const cudaError_t error = sticky_error(); error != cudaSuccess) return failed(error);
  const cudaError_t error = work();
  return error == cudaSuccess ? error : failed(error);
}

// ---- Streams ------------------------------------------------------------------------------------

PTXSIM_API cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  if (const cudaError_t error = machine_error(); error != cudaSuccess) return failed(error);
  const std::lock_guard lock(streams_mutex);
  auto* created = new Stream{.device = machine().current_device};
  streams.insert(created);
  *stream = reinterpret_cast<cudaStream_t>(created);
  return cudaSuccess;
}
PTXSIM_API cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, 0);
}
PTXSIM_API cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  Stream* stream = find_stream(handle);
  if (stream == nullptr) return failed(cudaErrorInvalidResourceHandle);
  const std::lock_guard lock(streams_mutex);
  streams.erase(stream);
  delete stream;
  return cudaSuccess;
}
PTXSIM_API cudaError_t cudaDeviceSynchronize() {
  if (const cudaError_t error = machine_error(); error != cudaSuccess) return failed(error);
  const cudaError_t error = sticky_error();
  return error == cudaSuccess ? error : failed(error);
}
PTXSIM_API cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  if (!is_default(handle)) {
    const Stream* stream = find_stream(handle);
    if (stream == nullptr) return failed(cudaErrorInvalidResourceHandle);
    if (stream->capturing != nullptr) return failed(cudaErrorStreamCaptureUnsupported);
  }
  return cudaDeviceSynchronize();
}
PTXSIM_API cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return cudaStreamSynchronize(stream);
}
PTXSIM_API cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* device) {
  if (const cudaError_t error = machine_error(); error != cudaSuccess) return failed(error);
  const Stream* known = is_default(stream) ? nullptr : find_stream(stream);
  if (known == nullptr && !is_default(stream)) return failed(cudaErrorInvalidResourceHandle);
  *device = known == nullptr ? machine().current_device : known->device;
  return cudaSuccess;
}
PTXSIM_API cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) {
  return cudaSuccess;
}

// ---- Graphs: one stream's capture, replayed in order --------------------------------------------

PTXSIM_API cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode) {
  Stream* stream = find_stream(handle);
  if (stream == nullptr) return failed(cudaErrorStreamCaptureUnsupported);
  stream->capturing = new Graph;
  return cudaSuccess;
}
PTXSIM_API cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  Stream* stream = find_stream(handle);
  if (stream == nullptr || stream->capturing == nullptr) return failed(cudaErrorInvalidValue);
  *graph = reinterpret_cast<cudaGraph_t>(std::exchange(stream->capturing, nullptr));
  return cudaSuccess;
}
PTXSIM_API cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  const Stream* stream = is_default(handle) ? nullptr : find_stream(handle);
  const bool captures = stream != nullptr && stream->capturing != nullptr;
  *status = captures ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
PTXSIM_API cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                            unsigned long long) {
  *executable = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(graph)));
  return cudaSuccess;
}
PTXSIM_API cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  const Graph& graph = *reinterpret_cast<Graph*>(executable);
  return enqueue(stream, [&graph] {
    for (const auto& node : graph.nodes) {
      if (const cudaError_t error = node(); error != cudaSuccess) return error;
    }
    return cudaSuccess;
  });
}
PTXSIM_API cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete reinterpret_cast<Graph*>(graph);
  return cudaSuccess;
}
PTXSIM_API cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete reinterpret_cast<Graph*>(executable);
  return cudaSuccess;
}

// ---- Events: the host's clock -------------------------------------------------------------------

PTXSIM_API cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(new Clock::time_point);
  return cudaSuccess;
}
PTXSIM_API cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, 0);
}
PTXSIM_API cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete reinterpret_cast<Clock::time_point*>(event);
  return cudaSuccess;
}
PTXSIM_API cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  *reinterpret_cast<Clock::time_point*>(event) = Clock::now();
  return cudaSuccess;
}
PTXSIM_API cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaDeviceSynchronize(); }
PTXSIM_API cudaError_t cudaEventQuery(cudaEvent_t) { return cudaDeviceSynchronize(); }
PTXSIM_API cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin,
                                            cudaEvent_t end) {
  const auto passed =
      *reinterpret_cast<Clock::time_point*>(end) - *reinterpret_cast<Clock::time_point*>(begin);
  *milliseconds = std::chrono::duration<float, std::milli>(passed).count();
  return cudaSuccess;
}

}  // namespace ptxsim::runtime
