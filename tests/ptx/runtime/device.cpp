// The machine: devices, their attributes, and what a launch may use. Those of an H100, except for
// what Machine overrides.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "errors.h"
#include "modules.h"
#include "options.h"
#include "ptxsim/runtime.h"

namespace ptxsim::runtime {
namespace {

constexpr int kDefaultSharedBytes = 48 * 1024;
constexpr int kReservedSharedBytes = 1024;  // In each block, by the system, since 8.0.
constexpr int kThreadsPerBlock = 1024;
constexpr int kRegistersPerMultiprocessor = 65536;
constexpr std::size_t kMemoryBytes = std::size_t{80} << 30;

/// Limits of one architecture (CUDA programming guide, "Technical Specifications per Compute
/// Capability").
struct Limits {
  int shared_bytes_per_block, shared_bytes_per_multiprocessor, threads, blocks;
};
Limits limits_of(const Device& device) {
  const int capability = 10 * device.major + device.minor;
  Limits limits = {227 * 1024, 228 * 1024, 2048, 32};
  if (capability == 80) limits = {163 * 1024, 164 * 1024, 2048, 32};
  if (capability == 86) limits = {99 * 1024, 100 * 1024, 1536, 16};
  if (capability == 89) limits = {99 * 1024, 100 * 1024, 1536, 24};
  if (capability < 80) limits = {64 * 1024, 64 * 1024, 1024, 16};
  if (device.shared_bytes_per_multiprocessor != 0) {
    limits.shared_bytes_per_multiprocessor = device.shared_bytes_per_multiprocessor;
  }
  return limits;
}

const Device* find_device(int index) {
  const auto& devices = machine().devices;
  const bool exists = index >= 0 && index < static_cast<int>(devices.size());
  return exists ? &devices[static_cast<std::size_t>(index)] : nullptr;
}

/// Finds the kernel of a host function, or the error if there is none.
cudaError_t find(const void* function, RegisteredKernel*& kernel) {
  if (const cudaError_t error = machine_error(); error != cudaSuccess) return error;
  if (machine().kernel_image_missing) return cudaErrorNoKernelImageForDevice;
  kernel = find_kernel(function);
  return kernel == nullptr ? cudaErrorInvalidDeviceFunction : cudaSuccess;
}

}  // namespace

Machine& machine() {
  static Machine kMachine{
      .devices = {Device{.num_multiprocessors = static_cast<int>(options().num_multiprocessors)}}};
  return kMachine;
}

void set_landing(Landing landing, std::uint64_t seed) {
  options().landing = landing;
  options().seed = seed;
}

PTXSIM_API cudaError_t cudaDriverGetVersion(int* version) {
  *version = machine().driver_version;
  return cudaSuccess;
}
PTXSIM_API cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
PTXSIM_API cudaError_t cudaGetDeviceCount(int* count) {
  if (const cudaError_t error = machine_error(); error != cudaSuccess) return failed(error);
  *count = static_cast<int>(machine().devices.size());
  return cudaSuccess;
}
PTXSIM_API cudaError_t cudaGetDevice(int* device) {
  if (const cudaError_t error = machine_error(); error != cudaSuccess) return failed(error);
  *device = machine().current_device;
  return cudaSuccess;
}
PTXSIM_API cudaError_t cudaSetDevice(int device) {
  if (const cudaError_t error = machine_error(); error != cudaSuccess) return failed(error);
  if (find_device(device) == nullptr) return failed(cudaErrorInvalidDevice);
  machine().current_device = device;
  return cudaSuccess;
}
PTXSIM_API cudaError_t cudaDeviceReset() { return cudaSuccess; }

PTXSIM_API cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int index) {
  if (const cudaError_t error = machine_error(); error != cudaSuccess) return failed(error);
  const Device* device = find_device(index);
  if (device == nullptr) return failed(cudaErrorInvalidDevice);
  const Limits limits = limits_of(*device);
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = device->major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = device->minor;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = device->num_multiprocessors;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = limits.shared_bytes_per_block;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = limits.shared_bytes_per_multiprocessor;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = kDefaultSharedBytes;
      break;
    case cudaDevAttrReservedSharedMemoryPerBlock:
      *value = kReservedSharedBytes;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = limits.threads;
      break;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      *value = limits.blocks;
      break;
    case cudaDevAttrMaxThreadsPerBlock:
      *value = kThreadsPerBlock;
      break;
    case cudaDevAttrWarpSize:
      *value = kWarpSize;
      break;
    case cudaDevAttrL2CacheSize:
      *value = 50 << 20;
      break;
    case cudaDevAttrMaxRegistersPerBlock:
    case cudaDevAttrMaxRegistersPerMultiprocessor:
      *value = kRegistersPerMultiprocessor;
      break;
    default:
      return failed(cudaErrorNotSupported);
  }
  return cudaSuccess;
}

PTXSIM_API cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int index) {
  const Device* device = find_device(index);
  if (device == nullptr) return failed(cudaErrorInvalidDevice);
  const Limits limits = limits_of(*device);
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "ptxsim sm_%d%d", device->major,
                device->minor);
  properties->major = device->major;
  properties->minor = device->minor;
  properties->multiProcessorCount = device->num_multiprocessors;
  properties->sharedMemPerBlock = kDefaultSharedBytes;
  properties->sharedMemPerBlockOptin = static_cast<std::size_t>(limits.shared_bytes_per_block);
  properties->sharedMemPerMultiprocessor =
      static_cast<std::size_t>(limits.shared_bytes_per_multiprocessor);
  properties->warpSize = kWarpSize;
  properties->maxThreadsPerBlock = kThreadsPerBlock;
  properties->maxThreadsPerMultiProcessor = limits.threads;
  properties->regsPerBlock = properties->regsPerMultiprocessor = kRegistersPerMultiprocessor;
  properties->totalGlobalMem = kMemoryBytes;
  properties->l2CacheSize = 50 << 20;
  return cudaSuccess;
}

// ---- What a kernel uses -------------------------------------------------------------------------

PTXSIM_API cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute,
                                            int value) {
  RegisteredKernel* kernel = nullptr;
  if (const cudaError_t error = find(function, kernel); error != cudaSuccess) return failed(error);
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    const Limits limits = limits_of(*find_device(machine().current_device));
    if (value < 0 || value > limits.shared_bytes_per_block) return failed(cudaErrorInvalidValue);
    kernel->max_dynamic_shared_bytes = value;
  }
  return cudaSuccess;
}

PTXSIM_API cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  RegisteredKernel* kernel = nullptr;
  if (const cudaError_t error = find(function, kernel); error != cudaSuccess) return failed(error);
  const Function& compiled = *kernel->module->kernel(kernel->name).function;
  *attributes = {};
  attributes->sharedSizeBytes = compiled.shared_bytes;
  attributes->maxThreadsPerBlock =
      compiled.max_threads != 0 ? static_cast<int>(compiled.max_threads) : kThreadsPerBlock;
  attributes->maxDynamicSharedSizeBytes = kernel->max_dynamic_shared_bytes;
  attributes->ptxVersion = attributes->binaryVersion = 90;
  return cudaSuccess;
}

/// Counts threads, blocks and shared memory: what ptxas makes of registers is not known here.
PTXSIM_API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int* blocks, const void* function, int threads, size_t dynamic_shared_bytes, unsigned) {
  RegisteredKernel* kernel = nullptr;
  if (const cudaError_t error = find(function, kernel); error != cudaSuccess) return failed(error);
  if (blocks == nullptr || threads <= 0) return failed(cudaErrorInvalidValue);
  const Limits limits = limits_of(*find_device(machine().current_device));
  const auto allowed = static_cast<std::size_t>(kernel->max_dynamic_shared_bytes);
  *blocks = 0;  // A kernel that was not allowed what it asks for runs nowhere; no error.
  if (threads > kThreadsPerBlock || dynamic_shared_bytes > allowed) return cudaSuccess;
  const Function& compiled = *kernel->module->kernel(kernel->name).function;
  const auto shared =
      static_cast<int>(compiled.shared_bytes + dynamic_shared_bytes) + kReservedSharedBytes;
  const int warps = (threads + static_cast<int>(kWarpSize) - 1) / static_cast<int>(kWarpSize);
  *blocks = std::min({limits.threads / static_cast<int>(kWarpSize) / warps, limits.blocks,
                      limits.shared_bytes_per_multiprocessor / shared});
  return cudaSuccess;
}
PTXSIM_API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks,
                                                                     const void* function,
                                                                     int threads,
                                                                     size_t dynamic_shared_bytes) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads,
                                                                dynamic_shared_bytes, 0);
}
PTXSIM_API cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, const void*,
                                                      const cudaLaunchConfig_t* config) {
  unsigned size = 1;
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    if (config->attrs[i].id != cudaLaunchAttributeClusterDimension) continue;
    const auto& cluster = config->attrs[i].val.clusterDim;
    size = cluster.x * cluster.y * cluster.z;
  }
  *clusters = find_device(machine().current_device)->num_multiprocessors / static_cast<int>(size);
  return cudaSuccess;
}

}  // namespace ptxsim::runtime
