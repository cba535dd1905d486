// Device memory and timing by events, through the CUDA runtime. Launches no kernel of its own.
// SPDX-License-Identifier: Apache-2.0
#include "gpu.h"

#include <cuda_runtime_api.h>

#include <stdexcept>

namespace bench::gpu {
namespace {

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorName(error) + ": " +
                           cudaGetErrorString(error));
}

/// Overwrites the L2, several times any: a call then reads its inputs from memory, as it would
/// behind another layer's work. Also keeps the GPU busy while the host enqueues that call.
class L2Flush {
 public:
  L2Flush() : data_(allocate(kBytes)) {}
  void enqueue(cudaStream_t on) {
    fill_ = (fill_ + 1) % 100;  // Not zeros alone: they are cheaper to move.
    check(cudaMemsetAsync(data_, 1 + fill_, kBytes, on));
  }

 private:
  static constexpr std::size_t kBytes = std::size_t{512} << 20;
  void* data_;  // Until the process ends, as the events and the stream below.
  int fill_ = 0;
};

cudaEvent_t new_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreate(&event));
  return event;
}

}  // namespace

std::string unavailable_reason() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return "";
  return std::string("no GPU: ") +
         cudaGetErrorString(error == cudaSuccess ? cudaErrorNoDevice : error);
}

std::string description() {
  cudaDeviceProp properties{};
  int driver = 0;
  check(cudaGetDeviceProperties(&properties, /*device=*/0));
  check(cudaDriverGetVersion(&driver));
  return std::string(properties.name) + ", " + std::to_string(properties.multiProcessorCount) +
         " multiprocessors, driver for CUDA " + std::to_string(driver / 1000) + "." +
         std::to_string(driver % 1000 / 10);
}

void* allocate(std::size_t bytes) {
  void* data = nullptr;
  check(cudaMalloc(&data, bytes));
  return data;
}

void release(void* data) noexcept { cudaFree(data); }

void upload(void* device, const void* host, std::size_t bytes) {
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice,
                        static_cast<cudaStream_t>(stream())));
  check(cudaStreamSynchronize(static_cast<cudaStream_t>(stream())));
}

void download(void* host, const void* device, std::size_t bytes) {
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost,
                        static_cast<cudaStream_t>(stream())));
  check(cudaStreamSynchronize(static_cast<cudaStream_t>(stream())));
}

void* stream() {
  static const cudaStream_t kStream = [] {
    cudaStream_t created = nullptr;
    check(cudaStreamCreateWithFlags(&created, cudaStreamNonBlocking));
    return created;
  }();
  return kStream;
}

double time_seconds(const std::function<void()>& enqueue) {
  static L2Flush flush;
  static const cudaEvent_t kStart = new_event(), kEnd = new_event();
  const auto on = static_cast<cudaStream_t>(stream());
  flush.enqueue(on);
  check(cudaEventRecord(kStart, on));
  enqueue();
  check(cudaEventRecord(kEnd, on));
  check(cudaEventSynchronize(kEnd));
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, kStart, kEnd));
  return static_cast<double>(milliseconds) / 1e3;
}

}  // namespace bench::gpu
