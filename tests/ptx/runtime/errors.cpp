// SPDX-License-Identifier: Apache-2.0
#include "errors.h"

#include <cstdio>
#include <mutex>

#include "ptxsim/runtime.h"

namespace ptxsim::runtime {
namespace {

thread_local cudaError_t last_error = cudaSuccess;
std::mutex failure_mutex;
cudaError_t failure = cudaSuccess;
std::string failure_message;

struct NamedError {
  cudaError_t error;
  const char* name;
  const char* text;
};
constexpr NamedError kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInvalidSymbol, "cudaErrorInvalidSymbol", "invalid device symbol"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorInvalidPtx, "cudaErrorInvalidPtx", "a PTX JIT compilation failed"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources",
     "too many resources requested for launch"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
};

const NamedError* find(cudaError_t error) {
  for (const NamedError& known : kErrors) {
    if (known.error == error) return &known;
  }
  return nullptr;
}

}  // namespace

cudaError_t failed(cudaError_t error) { return last_error = error; }

cudaError_t machine_error() {
  constexpr int kPerMajor = 1000;
  if (machine().driver_version / kPerMajor < CUDART_VERSION / kPerMajor) {
    return cudaErrorInsufficientDriver;
  }
  return machine().devices.empty() ? cudaErrorNoDevice : cudaSuccess;
}

cudaError_t sticky_error() {
  const std::lock_guard lock(failure_mutex);
  return failure;
}

void fail_device(cudaError_t error, const std::string& text) {
  const std::lock_guard lock(failure_mutex);
  std::fprintf(stderr, "[ptxsim] %s\n", text.c_str());
  failure = error;
  failure_message = text;
}

std::string failure_text() {
  const std::lock_guard lock(failure_mutex);
  return failure_message;
}

PTXSIM_API cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
PTXSIM_API cudaError_t cudaPeekAtLastError() { return last_error; }
PTXSIM_API const char* cudaGetErrorName(cudaError_t error) {
  const NamedError* known = find(error);
  return known != nullptr ? known->name : "cudaError of another number";
}
PTXSIM_API const char* cudaGetErrorString(cudaError_t error) {
  const NamedError* known = find(error);
  return known != nullptr ? known->text : "an error that ptxsim never returns";
}

}  // namespace ptxsim::runtime
