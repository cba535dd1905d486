// Launches: copies the parameters, runs the kernel and keeps its report.
// SPDX-License-Identifier: Apache-2.0
#include "launch.h"

#include <cuda_runtime_api.h>

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "errors.h"
#include "memory.h"
#include "modules.h"
#include "ptxsim/runtime.h"
#include "report.h"
#include "streams.h"

namespace ptxsim::runtime {
namespace {

struct Configuration {
  dim3 grid, block, cluster = {1, 1, 1};
  size_t dynamic_shared_bytes = 0;
  cudaStream_t stream = nullptr;
};
thread_local std::vector<Configuration> pushed;  // By <<<...>>>.

void (*before_launch)() = nullptr;

Dim3 dimensions(const dim3& of) { return {of.x, of.y, of.z}; }

bool is_valid(const Configuration& config) {
  const u64 threads = u64{config.block.x} * config.block.y * config.block.z;
  const bool has_blocks = config.grid.x != 0 && config.grid.y != 0 && config.grid.z != 0;
  return has_blocks && config.grid.y <= 65535 && config.grid.z <= 65535 && threads != 0 &&
         threads <= 1024 && config.block.z <= 64;
}

/// A launch's parameters, in memory that the kernel may read while this object lives.
class Parameters {
 public:
  Parameters(const Function& function, void** arguments)
      : memory_(new u8[function.parameter_bytes + kAlignment]) {
    const auto address = reinterpret_cast<u64>(memory_.get());
    begin_ = reinterpret_cast<u8*>((address + kAlignment - 1) / kAlignment * kAlignment);
    std::memset(begin_, 0, function.parameter_bytes);
    for (std::size_t i = 0; i < function.parameters.size(); ++i) {
      const Parameter& parameter = function.parameters[i];
      std::memcpy(begin_ + parameter.offset, arguments[i], parameter.bytes);
    }
    add_memory(begin_, function.parameter_bytes);
  }
  ~Parameters() { remove_memory(begin_); }
  Parameters(const Parameters&) = delete;
  Parameters& operator=(const Parameters&) = delete;
  const u8* begin() const { return begin_; }

 private:
  static constexpr u64 kAlignment = 128;  // Tensor maps need 64.
  std::unique_ptr<u8[]> memory_;
  u8* begin_ = nullptr;
};

cudaError_t run_kernel(const RegisteredKernel& registered, const Launch& launch) {
  if (before_launch != nullptr) before_launch();
  Counts counts;
  cudaError_t result = cudaSuccess;
  try {
    run(launch, &counts);
  } catch (const std::exception& error) {
    fail_device(cudaErrorLaunchFailure, error.what());
    result = cudaErrorLaunchFailure;
  }
  report_launch(registered, *launch.kernel, counts);
  return result;
}

cudaError_t launch_kernel(const void* function, Configuration config, void** arguments) {
  if (const cudaError_t error = machine_error(); error != cudaSuccess) return failed(error);
  if (machine().kernel_image_missing) return failed(cudaErrorNoKernelImageForDevice);
  if (machine().next_launch_error != cudaSuccess) {
    return failed(std::exchange(machine().next_launch_error, cudaSuccess));
  }
  const RegisteredKernel* registered = find_kernel(function);
  if (registered == nullptr) return failed(cudaErrorInvalidDeviceFunction);
  if (!is_valid(config)) return failed(cudaErrorInvalidConfiguration);
  const Kernel* kernel = nullptr;
  try {
    kernel = &registered->module->kernel(registered->name);
  } catch (const std::exception& error) {
    fail_device(cudaErrorInvalidPtx, error.what());
    return failed(cudaErrorInvalidPtx);
  }
  const Function& compiled = *kernel->function;
  const u64 most_shared = static_cast<u64>(registered->max_dynamic_shared_bytes);
  if (config.dynamic_shared_bytes > most_shared) return failed(cudaErrorInvalidValue);
  if (compiled.cluster[0] != 0) {
    config.cluster = {compiled.cluster[0], compiled.cluster[1], compiled.cluster[2]};
  }
  const auto parameters = std::make_shared<Parameters>(compiled, arguments);
  return enqueue(config.stream, [=] {
    return run_kernel(*registered, {.kernel = kernel,
                                    .grid = dimensions(config.grid),
                                    .block = dimensions(config.block),
                                    .cluster = dimensions(config.cluster),
                                    .dynamic_shared_bytes = config.dynamic_shared_bytes,
                                    .parameters = parameters->begin()});
  });
}

}  // namespace

void set_before_launch(void (*hook)()) { before_launch = hook; }

PTXSIM_API unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes,
                                                cudaStream_t stream) {
  pushed.push_back(
      {.grid = grid, .block = block, .dynamic_shared_bytes = shared_bytes, .stream = stream});
  return 0;
}
PTXSIM_API cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared_bytes,
                                                  void* stream) {
  const Configuration config = pushed.back();
  pushed.pop_back();
  *grid = config.grid;
  *block = config.block;
  *shared_bytes = config.dynamic_shared_bytes;
  *static_cast<cudaStream_t*>(stream) = config.stream;
  return cudaSuccess;
}

PTXSIM_API cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block,
                                        void** arguments, size_t shared_bytes,
                                        cudaStream_t stream) {
  return launch_kernel(
      function,
      {.grid = grid, .block = block, .dynamic_shared_bytes = shared_bytes, .stream = stream},
      arguments);
}
/// A kernel's handle is the address of its host function (__cudaGetKernel).
PTXSIM_API cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block,
                                          void** arguments, size_t shared_bytes,
                                          cudaStream_t stream) {
  return cudaLaunchKernel(kernel, grid, block, arguments, shared_bytes, stream);
}
PTXSIM_API cudaError_t __cudaLaunchKernel_ptsz(cudaKernel_t kernel, dim3 grid, dim3 block,
                                               void** arguments, size_t shared_bytes,
                                               cudaStream_t stream) {
  return cudaLaunchKernel(kernel, grid, block, arguments, shared_bytes, stream);
}
PTXSIM_API cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function,
                                           void** arguments) {
  Configuration own{.grid = config->gridDim,
                    .block = config->blockDim,
                    .dynamic_shared_bytes = config->dynamicSmemBytes,
                    .stream = config->stream};
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    if (config->attrs[i].id != cudaLaunchAttributeClusterDimension) continue;
    const auto& cluster = config->attrs[i].val.clusterDim;
    own.cluster = {cluster.x, cluster.y, cluster.z};
  }
  return launch_kernel(function, own, arguments);
}

}  // namespace ptxsim::runtime
