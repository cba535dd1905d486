// Every refusal of the C surface on tensors in emulated device memory. A refused call returns its
// own status and a text with argument, expected and got; it launches nothing and leaves outputs as
// they were. The argument names the kind of machine that the process sees.
// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "api/backends.h"
#include "api_arguments.h"
#include "api_cuda_error_cases.h"
#include "api_error_cases.h"
#include "check.h"
#include "core/check.h"
#include "device_place.h"
#include "minference/minference.h"
#include "simt/simt.h"

namespace {

using namespace minference::test;

minf_capability backend_named(std::string_view name) {
  minf_capability backend{.name = "", .available = 0, .selected = 0, .reason = ""};
  for (int32_t i = 0; i < minf_backend_count(); ++i) {
    CHECK(minf_backend(i, &backend) == MINF_OK);
    if (backend.name == name) return backend;
  }
  CHECK(false, "no backend", name);
  return backend;
}

/// Checks, without a usable GPU, that every call says so, and minf_backend() in the same words.
void expect_unavailable(minf_status status, const std::string& reason) {
  for (const std::string_view name : {"sm90", "sm80"}) {
    const minf_capability backend = backend_named(name);
    CHECK(!backend.available && !backend.selected && backend.reason == reason, backend.reason);
  }
  place = Place{};  // No device memory can be allocated, and none is read.
  for (const Call call : kServed) {
    refuse_before_launch(
        status, call, {": no backend serves tensors on CUDA devices: sm90, sm80: " + reason},
        [](Arguments& a) {
          for (minf_tensor* tensor :
               {&a.q, &a.k, &a.v, &a.out, &a.lse, &a.tiles, &a.vertical_index, &a.slash_index,
                &a.index.vertical_index, &a.index.runs, &a.index.run_count, &a.index.block_index}) {
            tensor->device_type = MINF_DEVICE_CUDA;
          }
        });
  }
}

// ---- A machine with a GPU --------------------------------------------------------------------

void set_device(Arguments& a, int32_t device_index) {
  for (minf_tensor* tensor :
       {&a.q, &a.k, &a.v, &a.out, &a.lse, &a.tiles, &a.vertical_index, &a.slash_index,
        &a.index.vertical_index, &a.index.runs, &a.index.run_count, &a.index.block_index}) {
    tensor->device_index = device_index;
  }
}

void test_device_index() {
  for (const Call call : kServed) {
    for (const int32_t index : {-1, 1, INT32_MAX}) {
      refuse_before_launch(MINF_ERROR_INVALID_ARGUMENT, call,
                           {"device_index: expected 0 to 0, got " + std::to_string(index)},
                           [&](Arguments& a) { set_device(a, index); });
    }
  }
}

/// Entries are not read before the launch, so wrong ones are no error.
void test_index_entries_are_no_error() {
  for (const double entry : {-1e9, -2.0, -1.0, 0.0, 99.0, 100.0, 2e9}) {
    const auto spoil = [&](Arguments& a) {
      for (TestTensor* list : {&a.vertical_memory, &a.slash_memory}) {
        for (const int64_t idx : {0, 7, 39}) list->set({1, 2, idx}, entry);
      }
      a.run_count_memory.set({1, 2}, entry);
      for (const int64_t end : {0, 1}) a.runs_memory.set({0, 2, 1, end}, entry);
      a.block_memory.set({1, 3, 1, 0}, entry);
    };
    accept(&Arguments::plan, "distances", spoil);
    accept(&Arguments::count_tiles, "lists", spoil);
    accept(&Arguments::sparse, "lists", spoil);
  }
}

void test_failed_launches() {
  for (const Call call : kServed) {
    refuse_with(
        MINF_ERROR_LAUNCH_FAILED, call, {"cudaErrorLaunchOutOfResources: "},
        [](Arguments&) { simt::machine().next_launch_error = cudaErrorLaunchOutOfResources; });
    simt::machine().kernel_image_missing = true;
    refuse_with(MINF_ERROR_LAUNCH_FAILED, call, {"cudaErrorNoKernelImageForDevice: "}, nothing);
    simt::machine().kernel_image_missing = false;
    CHECK(cudaPeekAtLastError() == cudaSuccess, "left for the caller to find");
    accept(call, "after a failed launch", nothing);
  }
}

/// An error that the caller's own CUDA calls left behind is not reported as ours.
void test_errors_of_the_caller() {
  for (const Call call : kServed) {
    accept(call, "after an error of the caller",
           [](Arguments&) { CHECK(cudaSetDevice(99) == cudaErrorInvalidDevice); });
  }
}

void test_streams() {
  cudaStream_t stream = nullptr;
  CHECK(cudaStreamCreate(&stream) == cudaSuccess);
  for (const Call call : kServed) {
    for (const cudaStream_t any : {stream, cudaStreamLegacy, cudaStreamPerThread}) {
      accept(call, "a stream of the device", [&](Arguments& a) { a.exec.stream = any; });
    }
  }
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
}

/// Checks that `name` computes; if it is another GPU backend, sm80 must be usable too.
void expect_selected(std::string_view name) {
  for (const std::string_view each : {"sm90", "sm80"}) {
    const minf_capability backend = backend_named(each);
    CHECK(backend.selected == (each == name ? 1 : 0), each);
    CHECK(backend.available != 0 || each != name, each);
    CHECK((backend.available != 0) == (*backend.reason == '\0'), backend.reason);
  }
}

void test_gpu() {
  test_common_errors();
  test_workspace({&Arguments::estimate_vertical_slash, &Arguments::estimate_blocks,
                  &Arguments::sparse, &Arguments::prefill});
  test_sizes_of_workspaces();
  test_elements();
  test_elements_of_attention();
  test_elements_of_a_merge();
  test_memory_of_the_host();
  test_device_index();
  test_index_entries_are_no_error();
  test_failed_launches();
  test_errors_of_the_caller();
  test_streams();
}

/// A backend can be forced on a device that it serves, and then computes.
void test_forced_backends(std::string_view best) {
  CHECK(minf_set_backend("sm80") == MINF_OK);
  expect_selected("sm80");
  test_index_entries_are_no_error();
  CHECK((minf_set_backend("sm90") == MINF_OK) == (best == "sm90"), minf_last_error());
  CHECK(minf_set_backend("abacus") == MINF_ERROR_INVALID_ARGUMENT);
  CHECK(minf_set_backend("") == MINF_OK);
  expect_selected(best);
  int32_t seqlen = 0;
  CHECK(minf_min_sparse_seqlen(MINF_DEVICE_CUDA, 0, &seqlen) == MINF_OK && seqlen > 0);
  CHECK(minf_min_sparse_seqlen(MINF_DEVICE_CUDA, 1, &seqlen) == MINF_ERROR_INVALID_ARGUMENT);
  CHECK(minf_min_sparse_seqlen(7, 0, &seqlen) == MINF_ERROR_INVALID_ARGUMENT);
  CHECK(minf_min_sparse_seqlen(MINF_DEVICE_CPU, 0, nullptr) == MINF_ERROR_INVALID_ARGUMENT);
}

void one_gpu() {
  expect_selected("sm90");
  test_gpu();
  test_forced_backends("sm90");
}

void ampere() {
  simt::machine().devices = {{.major = 8, .minor = 0}};
  expect_selected("sm80");
  CHECK(backend_named("sm90").reason == std::string_view("GPU 0 is sm_80, need sm_90"));
  test_gpu();
  test_forced_backends("sm80");
}

// ---- Other machines --------------------------------------------------------------------------

void two_gpus() {
  simt::machine().devices = {{.major = 9, .minor = 0}, {.major = 8, .minor = 6}};
  cudaStream_t stream_of_1 = nullptr;
  CHECK(cudaSetDevice(1) == cudaSuccess && cudaStreamCreate(&stream_of_1) == cudaSuccess);
  CHECK(cudaSetDevice(0) == cudaSuccess);
  for (const Call call : kServed) {
    refuse_before_launch(MINF_ERROR_WRONG_STREAM, call,
                         {"stream: expected a stream of cuda:0, got one of cuda:1"},
                         [&](Arguments& a) { a.exec.stream = stream_of_1; });
    refuse_before_launch(MINF_ERROR_WRONG_DEVICE, call,
                         {": expected memory of cuda:1, got memory of cuda:0 at 0x"},
                         [&](Arguments& a) { set_device(a, 1); });
  }

  // Memory is on GPU 1 while GPU 0 is current: inside the call its device is current, afterwards
  // not.
  CHECK(cudaSetDevice(1) == cudaSuccess);
  Arguments a;
  void* const work = simt::device_malloc(WorkMemory::kBytes);
  CHECK(cudaSetDevice(0) == cudaSuccess);
  set_device(a, 1);
  refuse_before_launch(MINF_ERROR_WRONG_DEVICE, &Arguments::estimate_blocks,
                       {"k: expected memory of cuda:0, got memory of cuda:1 at 0x"},
                       [&](Arguments& other) { other.k.data = a.k.data; });
  a.work.data = work;
  a.exec.stream = stream_of_1;
  for (const Call call : kServed) {
    CHECK((a.*call)() == MINF_OK, minf_last_error());
    CHECK(simt::machine().current_device == 0, "the caller's device is current again");
    simt::machine().next_launch_error = cudaErrorLaunchFailure;
    CHECK((a.*call)() == MINF_ERROR_LAUNCH_FAILED, minf_last_error());
    CHECK(simt::machine().current_device == 0, "also after a failure");
  }
  simt::device_free(work);
  CHECK(cudaStreamDestroy(stream_of_1) == cudaSuccess);
}

void no_driver() {
  simt::machine().driver_version = 0;
  expect_unavailable(MINF_ERROR_NO_DEVICE, "no CUDA driver");
}

void old_driver() {
  simt::machine().driver_version = 12040;
  expect_unavailable(MINF_ERROR_DRIVER_TOO_OLD, "driver supports CUDA 12.4, this build needs 13.0");
}

void no_gpu() {
  simt::machine().devices.clear();
  expect_unavailable(MINF_ERROR_NO_DEVICE, "no GPU (driver supports CUDA 13.0)");
}

void old_gpu() {
  simt::machine().devices = {{.major = 7, .minor = 5}};
  expect_unavailable(MINF_ERROR_ARCH_NOT_BUILT, "GPU 0 is sm_75, need sm_80 or newer");
}

void old_and_new_gpu() {
  simt::machine().devices = {{.major = 7, .minor = 5}, {.major = 8, .minor = 0}};
  CHECK(backend_named("sm80").available);
  for (const Call call : kServed) {
    refuse_before_launch(MINF_ERROR_ARCH_NOT_BUILT, call, {"GPU 0 is sm_75, need sm_80 or newer"},
                         nothing);
  }
}

const std::map<std::string_view, void (*)()> kMachines = {
    {"one_gpu", one_gpu},       {"ampere", ampere},
    {"two_gpus", two_gpus},     {"no_driver", no_driver},
    {"old_driver", old_driver}, {"no_gpu", no_gpu},
    {"old_gpu", old_gpu},       {"old_and_new_gpu", old_and_new_gpu}};

}  // namespace

int main(int argc, char** argv) {
  const auto machine = kMachines.find(argc == 2 ? argv[1] : "");
  if (machine == kMachines.end()) {
    std::cerr << "expected a kind of machine: one_gpu, two_gpus, no_driver, ...\n";
    return 2;
  }
  place = kDevicePlace;
  element_dtype = MINF_BFLOAT16;
  simt::options().max_shared_bytes = std::size_t{227} << 10;  // Some machines have a Hopper GPU.
  machine->second();
  return finish();
}
