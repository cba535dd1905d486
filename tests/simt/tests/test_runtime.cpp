// The runtime's host functions on all kinds of machines.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime_api.h>
#include <simt/launch.h>

#include <cstring>

#include "test.h"

namespace {

void nothing() {}
void takes_shared_memory(int) {}
void takes_none(float) {}

int last_number = 0;
void keep(int number) { last_number = number; }

cudaError_t launch_on(cudaStream_t stream) {
  return simt::launch("nothing", dim3(1), dim3(1), 0, stream, &nothing);
}

void test_default_machine() {
  simt::machine() = {};
  int value = -1;
  CHECK(cudaGetDeviceCount(&value) == cudaSuccess && value == 1);
  CHECK(cudaDriverGetVersion(&value) == cudaSuccess && value == 13000);
  CHECK(cudaRuntimeGetVersion(&value) == cudaSuccess && value == CUDART_VERSION);
  CHECK(cudaGetDevice(&value) == cudaSuccess && value == 0);
  CHECK(cudaSetDevice(0) == cudaSuccess);
  CHECK(cudaSetDevice(1) == cudaErrorInvalidDevice && cudaGetLastError() == cudaErrorInvalidDevice);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  CHECK(launch_on(nullptr) == cudaSuccess);
  CHECK(launch_on(cudaStreamLegacy) == cudaSuccess);
  CHECK(launch_on(cudaStreamPerThread) == cudaSuccess);
  CHECK(cudaPeekAtLastError() == cudaSuccess);
}

// A call that fails must not change its result.
void check_all_fail_with(cudaError_t error) {
  int value = -1;
  void* pointer = nullptr;
  cudaStream_t stream = nullptr;
  cudaPointerAttributes attributes{};
  cudaFuncAttributes function_attributes{};
  cudaStreamCaptureStatus capture{};
  CHECK(cudaGetDeviceCount(&value) == error && value == -1);
  CHECK(cudaGetDevice(&value) == error && value == -1);
  CHECK(cudaSetDevice(0) == error);
  CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrWarpSize, 0) == error && value == -1);
  CHECK(cudaDeviceSynchronize() == error);
  CHECK(cudaMalloc(&pointer, 16) == error && pointer == nullptr);
  CHECK(cudaFree(nullptr) == error);
  CHECK(cudaMemset(pointer, 0, 0) == error);
  CHECK(cudaMemcpy(pointer, pointer, 0, cudaMemcpyDefault) == error);
  CHECK(cudaPointerGetAttributes(&attributes, &value) == error);
  CHECK(cudaStreamCreate(&stream) == error && stream == nullptr);
  CHECK(cudaStreamSynchronize(nullptr) == error);
  CHECK(cudaStreamGetDevice(nullptr, &value) == error && value == -1);
  CHECK(cudaStreamIsCapturing(nullptr, &capture) == error);
  CHECK(cudaFuncGetAttributes(&function_attributes, &nothing) == error);
  CHECK(cudaFuncSetAttribute(&nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, 1) == error);
  CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&value, &nothing, 32, 0) == error);
  CHECK(value == -1);
  CHECK(launch_on(nullptr) == error);
  CHECK(cudaPeekAtLastError() == error && cudaGetLastError() == error);
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(cudaRuntimeGetVersion(&value) == cudaSuccess && value == simt::machine().runtime_version);
}

void test_machines_without_gpu() {
  int version = -1;
  simt::machine() = {};
  simt::machine().driver_version = 0;
  check_all_fail_with(cudaErrorInsufficientDriver);
  CHECK(cudaDriverGetVersion(&version) == cudaSuccess && version == 0);
  simt::machine().driver_version = 12080;
  check_all_fail_with(cudaErrorInsufficientDriver);
  simt::machine().runtime_version = 12090;  // Older drivers of the same major version will do.
  CHECK(launch_on(nullptr) == cudaSuccess);
  simt::machine() = {};
  simt::machine().devices.clear();
  check_all_fail_with(cudaErrorNoDevice);
  simt::machine() = {};
}

void test_attributes() {
  simt::machine() = {};
  simt::machine().devices = {{7, 5, 40}, {8, 0, 108}, {8, 6, 84}, {9, 0, 132}};
  const auto attribute = [](cudaDeviceAttr which, int device) {
    int value = -1;
    CHECK(cudaDeviceGetAttribute(&value, which, device) == cudaSuccess);
    return value;
  };
  CHECK(attribute(cudaDevAttrComputeCapabilityMajor, 0) == 7);
  CHECK(attribute(cudaDevAttrComputeCapabilityMinor, 0) == 5);
  CHECK(attribute(cudaDevAttrMultiProcessorCount, 1) == 108);
  CHECK(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, 1) == 166912);
  CHECK(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, 2) == 101376);
  CHECK(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, 3) == 232448);
  CHECK(attribute(cudaDevAttrMaxSharedMemoryPerBlock, 3) == 49152);
  CHECK(attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, 1) == 167936);
  CHECK(attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, 3) == 233472);
  CHECK(attribute(cudaDevAttrReservedSharedMemoryPerBlock, 3) == 1024);
  CHECK(attribute(cudaDevAttrMaxBlocksPerMultiprocessor, 2) == 16);
  CHECK(attribute(cudaDevAttrMaxBlocksPerMultiprocessor, 3) == 32);
  CHECK(attribute(cudaDevAttrMaxThreadsPerMultiProcessor, 2) == 1536);
  CHECK(attribute(cudaDevAttrWarpSize, 3) == 32);
  CHECK(attribute(cudaDevAttrMaxThreadsPerBlock, 3) == 1024);
  int value = 0;
  CHECK(cudaDeviceGetAttribute(&value, static_cast<cudaDeviceAttr>(12345), 0) ==
        cudaErrorInvalidValue);
  CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrWarpSize, 4) == cudaErrorInvalidDevice);
  cudaGetLastError();
  simt::machine() = {};
}

void test_two_devices() {
  simt::machine() = {};
  simt::machine().devices.resize(2);
  cudaStream_t on_0 = nullptr;
  cudaStream_t on_1 = nullptr;
  CHECK(cudaStreamCreate(&on_0) == cudaSuccess);
  CHECK(cudaSetDevice(1) == cudaSuccess);
  CHECK(cudaStreamCreateWithFlags(&on_1, cudaStreamNonBlocking) == cudaSuccess);
  int device = -1;
  CHECK(cudaStreamGetDevice(on_0, &device) == cudaSuccess && device == 0);
  CHECK(cudaStreamGetDevice(on_1, &device) == cudaSuccess && device == 1);
  CHECK(cudaStreamGetDevice(nullptr, &device) == cudaSuccess && device == 1);
  CHECK(launch_on(on_0) == cudaErrorInvalidResourceHandle);
  CHECK(cudaGetLastError() == cudaErrorInvalidResourceHandle);
  CHECK(launch_on(on_1) == cudaSuccess);
  void* memory = nullptr;
  CHECK(cudaMalloc(&memory, 16) == cudaSuccess);
  CHECK(cudaMemsetAsync(memory, 0, 16, on_0) == cudaErrorInvalidResourceHandle);
  CHECK(cudaMemsetAsync(memory, 0, 16, on_1) == cudaSuccess);
  cudaPointerAttributes attributes{};
  CHECK(cudaPointerGetAttributes(&attributes, static_cast<char*>(memory) + 8) == cudaSuccess);
  CHECK(attributes.type == cudaMemoryTypeDevice && attributes.device == 1);
  CHECK(attributes.devicePointer == static_cast<char*>(memory) + 8);
  CHECK(cudaPointerGetAttributes(&attributes, &device) == cudaSuccess);
  CHECK(attributes.type == cudaMemoryTypeUnregistered && attributes.hostPointer == &device);
  CHECK(cudaStreamSynchronize(on_1) == cudaSuccess);
  CHECK(cudaFree(memory) == cudaSuccess);
  CHECK(cudaStreamDestroy(on_0) == cudaSuccess && cudaStreamDestroy(on_1) == cudaSuccess);
  CHECK(cudaStreamDestroy(nullptr) == cudaErrorInvalidResourceHandle);
  cudaGetLastError();
  simt::machine() = {};
}

void test_kernel_errors() {
  simt::machine() = {};
  simt::machine().next_launch_error = cudaErrorLaunchFailure;
  CHECK(launch_on(nullptr) == cudaErrorLaunchFailure);
  CHECK(cudaGetLastError() == cudaErrorLaunchFailure);
  CHECK(launch_on(nullptr) == cudaSuccess);
  cudaFuncAttributes attributes{};
  CHECK(cudaFuncGetAttributes(&attributes, &nothing) == cudaSuccess);
  CHECK(attributes.binaryVersion == 90 && attributes.maxThreadsPerBlock == 1024);
  CHECK(cudaFuncGetAttributes(&attributes, static_cast<const void*>(nullptr)) ==
        cudaErrorInvalidDeviceFunction);
  CHECK(cudaFuncSetAttribute(&nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, 101376) ==
        cudaSuccess);
  CHECK(cudaFuncSetAttribute(&nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, 101377) ==
        cudaErrorInvalidValue);
  simt::machine().kernel_image_missing = true;
  CHECK(cudaFuncGetAttributes(&attributes, &nothing) == cudaErrorNoKernelImageForDevice);
  CHECK(launch_on(nullptr) == cudaErrorNoKernelImageForDevice);
  simt::machine() = {};
  cudaStreamCaptureStatus capture{};
  simt::machine().capture = cudaStreamCaptureStatusActive;
  CHECK(cudaStreamIsCapturing(nullptr, &capture) == cudaSuccess);
  CHECK(capture == cudaStreamCaptureStatusActive);
  simt::machine() = {};
  cudaGetLastError();
}

void test_occupancy() {
  simt::machine() = {};
  simt::machine().devices = {{9, 0, 132}, {8, 0, 108}, {8, 6, 84}, {9, 0, 132, 100 * 1024}};
  const auto blocks = [](int block_threads, std::size_t shared_bytes) {
    int count = -1;
    CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&count, &takes_shared_memory, block_threads,
                                                        shared_bytes) == cudaSuccess);
    return count;
  };
  CHECK(blocks(32, 0) == 32);  // Limited by the number of blocks.
  CHECK(blocks(128, 0) == 16 && blocks(1024, 0) == 2);
  CHECK(blocks(129, 0) == 12);        // Limited by whole warps: 5 of 64.
  CHECK(blocks(32, 37 * 1024) == 6);  // 228 / (37 + 1).
  CHECK(blocks(32, 37 * 1024 + 1) == 5);
  CHECK(blocks(32, 48 * 1024) == 4);      // 228 / 49.
  CHECK(blocks(1025, 0) == 0);            // No block may be so large.
  CHECK(blocks(32, 48 * 1024 + 1) == 0);  // Not allowed.

  const auto allow = [](int bytes) {
    return cudaFuncSetAttribute(&takes_shared_memory, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                bytes);
  };
  CHECK(allow(99 * 1024) == cudaSuccess);
  CHECK(allow(99 * 1024 + 1) == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  CHECK(blocks(32, 75 * 1024) == 3 && blocks(32, 76 * 1024) == 2 && blocks(32, 99 * 1024) == 2);
  CHECK(blocks(32, 99 * 1024 + 1) == 0);
  cudaFuncAttributes attributes{};
  CHECK(cudaFuncGetAttributes(&attributes, &takes_shared_memory) == cudaSuccess);
  CHECK(attributes.maxDynamicSharedSizeBytes == 99 * 1024);
  CHECK(cudaFuncGetAttributes(&attributes, &takes_none) == cudaSuccess);
  CHECK(attributes.maxDynamicSharedSizeBytes == 48 * 1024);

  // Each device has its own numbers, and its own limit for the kernel.
  CHECK(cudaSetDevice(1) == cudaSuccess);
  CHECK(blocks(32, 99 * 1024) == 0 && blocks(32, 40 * 1024) == 4 && blocks(1024, 0) == 2);
  CHECK(cudaSetDevice(2) == cudaSuccess);
  CHECK(blocks(32, 40 * 1024) == 2 && blocks(1024, 0) == 1 && blocks(32, 0) == 16);
  CHECK(cudaSetDevice(3) == cudaSuccess && allow(99 * 1024) == cudaSuccess);
  CHECK(blocks(32, 99 * 1024) == 1 && blocks(32, 49 * 1024) == 2);

  int count = -1;
  const auto* const none = static_cast<const void*>(nullptr);
  CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&count, none, 32, 0) ==
        cudaErrorInvalidDeviceFunction);
  CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&count, &nothing, 0, 0) ==
        cudaErrorInvalidValue);
  simt::machine().kernel_image_missing = true;
  CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&count, &nothing, 32, 0) ==
        cudaErrorNoKernelImageForDevice);
  CHECK(count == -1);
  cudaGetLastError();
  simt::machine() = {};
}

// Work is kept while captured, and each launch of the graph runs it with the arguments of the
// capture and the memory of the launch.
void test_graphs() {
  simt::machine() = {};
  cudaStream_t stream = nullptr;
  CHECK(cudaStreamCreate(&stream) == cudaSuccess);
  int* numbers = nullptr;
  CHECK(cudaMalloc(&numbers, 2 * sizeof(int)) == cudaSuccess);
  cudaGraph_t graph = nullptr;
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorIllegalState);
  CHECK(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal) ==
        cudaErrorStreamCaptureUnsupported);

  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaErrorIllegalState);
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  CHECK(cudaStreamIsCapturing(stream, &status) == cudaSuccess);
  CHECK(status == cudaStreamCaptureStatusActive);
  CHECK(cudaStreamSynchronize(stream) == cudaErrorStreamCaptureUnsupported);
  numbers[0] = 5;
  last_number = 0;
  int number = 7;
  CHECK(simt::launch("keep", dim3(1), dim3(1), 0, stream, &keep, number) == cudaSuccess);
  number = 8;  // NOLINT(clang-analyzer-deadcode.DeadStores): the graph has the old value.
  CHECK(cudaMemcpyAsync(numbers + 1, numbers, sizeof(int), cudaMemcpyDeviceToDevice, stream) ==
        cudaSuccess);
  CHECK(cudaMemsetAsync(numbers, 0, sizeof(int), stream) == cudaSuccess);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaSuccess && graph != nullptr);
  CHECK(last_number == 0 && numbers[0] == 5, "nothing has run");

  cudaGraphExec_t executable = nullptr;
  CHECK(cudaGraphInstantiate(&executable, nullptr, 0) == cudaErrorInvalidValue);
  CHECK(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  for (const int round : {21, 22}) {
    numbers[0] = round;
    last_number = 0;
    CHECK(cudaGraphLaunch(executable, stream) == cudaSuccess);
    CHECK(last_number == 7 && numbers[0] == 0 && numbers[1] == round);
  }
  simt::machine().next_launch_error = cudaErrorLaunchFailure;
  CHECK(cudaGraphLaunch(executable, stream) == cudaErrorLaunchFailure);
  CHECK(cudaGraphLaunch(nullptr, stream) == cudaErrorInvalidValue);
  CHECK(cudaGraphExecDestroy(executable) == cudaSuccess);
  CHECK(cudaFree(numbers) == cudaSuccess && cudaStreamDestroy(stream) == cudaSuccess);
  cudaGetLastError();
  simt::machine() = {};
}

void test_error_texts() {
  CHECK(std::strcmp(cudaGetErrorName(cudaErrorInsufficientDriver), "cudaErrorInsufficientDriver") ==
        0);
  CHECK(std::strcmp(cudaGetErrorString(cudaErrorNoDevice), "no CUDA-capable device is detected") ==
        0);
  CHECK(std::strcmp(cudaGetErrorName(static_cast<cudaError_t>(12345)), "unrecognized error code") ==
        0);
  CHECK(std::strcmp(cudaGetErrorString(static_cast<cudaError_t>(12345)),
                    "unrecognized error code") == 0);
  static_assert(cudaErrorInsufficientDriver == 35 && cudaErrorNoKernelImageForDevice == 209);
}

}  // namespace

int main() {
  test_default_machine();
  test_machines_without_gpu();
  test_attributes();
  test_two_devices();
  test_kernel_errors();
  test_occupancy();
  test_graphs();
  test_error_texts();
  return simt::test::finish();
}
