// Every refusal of the C surface on tensors in emulated device memory. A refused call has a status
// of its own, a text with argument, expected and got; nothing was launched, and outputs are as they
// were. Takes the kind of machine that the process sees.
// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "api/device.h"
#include "api_arguments.h"
#include "api_error_cases.h"
#include "check.h"
#include "core/check.h"
#include "device_place.h"
#include "minference/minference.h"
#include "simt/simt.h"

namespace {

using namespace minference::test;

const Call kServed[] = {&Arguments::estimate_vertical_slash, &Arguments::estimate_blocks,
                        &Arguments::plan, &Arguments::count_tiles, &Arguments::merge};
const Call kEstimates[] = {&Arguments::estimate_vertical_slash, &Arguments::estimate_blocks};

/// refuse_with(), and no kernel was launched: one that was would have taken the error that waits
/// for the next launch.
template <typename Spoil>
void refuse_before_launch(minf_status status, Call call, Texts texts, const Spoil& spoil) {
  refuse_with(status, call, texts, [&](Arguments& arguments) {
    spoil(arguments);
    simt::machine().next_launch_error = cudaErrorUnknown;
  });
  CHECK(simt::machine().next_launch_error == cudaErrorUnknown, "launched:", *texts.begin());
  simt::machine().next_launch_error = cudaSuccess;
}

void nothing(Arguments&) {}

minf_capability sm80() {
  minf_capability backend{};
  CHECK(minf_backend(0, &backend) == MINF_OK);
  CHECK(std::string_view(backend.name) == "sm80", backend.name);
  return backend;
}

/// On a machine that has no GPU for us: every call says so, and minf_backend() in the same words.
void expect_unavailable(minf_status status, const std::string& reason) {
  const minf_capability backend = sm80();
  CHECK(!backend.available && !backend.selected && backend.reason == reason, backend.reason);
  place = Place{};  // There is no device memory to be had; nor is any looked at.
  for (const Call call : kServed) {
    refuse_before_launch(
        status, call, {": no backend serves tensors on CUDA devices: sm80: " + reason},
        [](Arguments& a) {
          for (minf_tensor* tensor :
               {&a.q, &a.k, &a.out, &a.lse, &a.tiles, &a.vertical_index, &a.slash_index,
                &a.index.vertical_index, &a.index.runs, &a.index.run_count, &a.index.block_index}) {
            tensor->device_type = MINF_DEVICE_CUDA;
          }
        });
  }
}

// ---- A machine with a GPU --------------------------------------------------------------------

void test_elements() {
  for (const Call call : kEstimates) {
    refuse_before_launch(MINF_ERROR_UNSUPPORTED, call,
                         {"q: expected dtype bfloat16 or float16 on CUDA devices, got float32"},
                         [](Arguments& a) { a.q.dtype = a.k.dtype = MINF_FLOAT32; });
    refuse_before_launch(MINF_ERROR_UNSUPPORTED, call,
                         {"q: expected rows aligned to 16 bytes on CUDA devices, strides that are "
                          "multiples of 8 elements, got stride 260 in dimension 1"},
                         [](Arguments& a) { a.q.stride[1] = 260; });
    refuse_before_launch(MINF_ERROR_UNSUPPORTED, call,
                         {"k: expected rows aligned to 16 bytes", "got stride 65 in dimension 2"},
                         [](Arguments& a) { a.k.stride[2] = 65; });
    refuse_before_launch(
        MINF_ERROR_UNSUPPORTED, call,
        {"k: expected rows aligned to 16 bytes", "got stride 12801 in dimension 0"},
        [](Arguments& a) { a.k.stride[0] = 12801; });
    refuse_before_launch(
        MINF_ERROR_UNSUPPORTED, call,
        {"k: expected rows aligned to 16 bytes on CUDA devices, got data at address"},
        [](Arguments& a) { a.k.data = shifted(a.k.data, 4); });
    accept(call, "strides that never count", [](Arguments& a) {
      a.q.shape[0] = a.k.shape[0] = a.vertical_index.shape[0] = a.slash_index.shape[0] = 1;
      a.index.block_index.shape[0] = 1;
      a.q.stride[0] = a.k.stride[0] = 3;
    });
  }
}

/// In Arguments::merge() q is out_a, and out is out_b as well.
void test_elements_of_a_merge() {
  const Call merge = &Arguments::merge;
  refuse_before_launch(
      MINF_ERROR_UNSUPPORTED, merge,
      {"out_a: expected dtype bfloat16 or float16 on CUDA devices, got float32"}, [](Arguments& a) {
        a.q.dtype = a.out.dtype = MINF_FLOAT32;
        a.q.shape[0] = a.out.shape[0] = a.lse.shape[0] = 1;  // They stay in their memory.
      });
  refuse_before_launch(MINF_ERROR_UNSUPPORTED, merge,
                       {"out_a: expected rows aligned to 16 bytes on CUDA devices, strides that "
                        "are multiples of 8 elements, got stride 260 in dimension 1"},
                       [](Arguments& a) { a.q.stride[1] = 260; });
  refuse_before_launch(
      MINF_ERROR_UNSUPPORTED, merge,
      {"out_a: expected rows aligned to 16 bytes on CUDA devices, got data at address 0x"},
      [](Arguments& a) { a.q.data = shifted(a.q.data, 4); });
  refuse_before_launch(MINF_ERROR_UNSUPPORTED, merge,
                       {"out_b: expected rows aligned to 16 bytes on CUDA devices, strides that "
                        "are multiples of 8 elements, got stride 65 in dimension 2"},
                       [](Arguments& a) {
                         a.q.shape[2] = a.out.shape[2] = a.lse.shape[1] = 2;
                         a.out.stride[2] = 65;
                       });
  const TestTensor out_b(element_dtype, {1, kSeqlenQ, kHeadsQ, kHeadDim});
  const minf_tensor out_b_view = out_b.view();
  Arguments arguments;
  minf_tensor &out_a = arguments.q, &out = arguments.out, &lse = arguments.lse;
  out_a.shape[0] = out.shape[0] = lse.shape[0] = 1;
  out.data = shifted(out.data, 1);
  check_refusal(MINF_ERROR_UNSUPPORTED,
                minf_merge_attention(&out_a, &lse, &out_b_view, &lse, &out, &lse, nullptr),
                {"out: expected rows aligned to 16 bytes on CUDA devices, got data at address 0x"});
  accept(merge, "strides that never count", [](Arguments& b) {
    b.q.shape[0] = b.out.shape[0] = b.lse.shape[0] = 1;
    b.q.stride[0] = 3;
    b.out.stride[0] = 0;
    b.lse.stride[0] = INT64_MAX;
  });
}

void test_memory_of_the_host() {
  std::vector<std::byte> host(std::size_t{1} << 20);
  const auto expect = [&](Call call, const char* name, const auto& member) {
    refuse_before_launch(MINF_ERROR_WRONG_DEVICE, call,
                         {std::string(name) + ": expected memory of cuda:0, got host memory at 0x"},
                         [&](Arguments& a) { member(a) = host.data(); });
  };
  for (const Call call : kEstimates) {
    expect(call, "q", [](Arguments& a) -> void*& { return a.q.data; });
    expect(call, "k", [](Arguments& a) -> void*& { return a.k.data; });
    expect(call, "workspace", [](Arguments& a) -> void*& { return a.work.data; });
  }
  const Call estimate = &Arguments::estimate_vertical_slash;
  expect(estimate, "vertical_index", [](Arguments& a) -> void*& { return a.vertical_index.data; });
  expect(estimate, "slash_index", [](Arguments& a) -> void*& { return a.slash_index.data; });
  expect(&Arguments::estimate_blocks, "block_index",
         [](Arguments& a) -> void*& { return a.index.block_index.data; });
  const Call merge = &Arguments::merge;
  expect(merge, "out_a", [](Arguments& a) -> void*& { return a.q.data; });
  expect(merge, "out_b", [](Arguments& a) -> void*& { return a.out.data; });
  expect(merge, "lse_a", [](Arguments& a) -> void*& { return a.lse.data; });
  const Call plan = &Arguments::plan, count = &Arguments::count_tiles;
  expect(plan, "slash_index", [](Arguments& a) -> void*& { return a.slash_index.data; });
  for (const Call call : {plan, count}) {
    expect(call, "runs", [](Arguments& a) -> void*& { return a.index.runs.data; });
    expect(call, "run_count", [](Arguments& a) -> void*& { return a.index.run_count.data; });
  }
  expect(count, "tiles", [](Arguments& a) -> void*& { return a.tiles.data; });
  expect(count, "vertical_index",
         [](Arguments& a) -> void*& { return a.index.vertical_index.data; });
  expect(count, "block_index", [](Arguments& a) -> void*& { return a.index.block_index.data; });
}

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

/// Entries are not looked at before the launch; what is wrong with them counts for nothing.
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

/// What the caller's own calls to CUDA left behind is not our failure.
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

void one_gpu() {
  const minf_capability backend = sm80();
  CHECK(backend.available && backend.selected && *backend.reason == '\0', backend.reason);
  test_common_errors();
  test_workspace({&Arguments::estimate_vertical_slash, &Arguments::estimate_blocks});
  test_elements();
  test_elements_of_a_merge();
  test_memory_of_the_host();
  test_device_index();
  test_index_entries_are_no_error();
  test_failed_launches();
  test_errors_of_the_caller();
  test_streams();
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

  // Memory of GPU 1 while GPU 0 is current: the call's device is current inside and not after.
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
  CHECK(sm80().available);
  for (const Call call : kServed) {
    refuse_before_launch(MINF_ERROR_ARCH_NOT_BUILT, call, {"GPU 0 is sm_75, need sm_80 or newer"},
                         nothing);
  }
}

const std::map<std::string_view, void (*)()> kMachines = {{"one_gpu", one_gpu},
                                                          {"two_gpus", two_gpus},
                                                          {"no_driver", no_driver},
                                                          {"old_driver", old_driver},
                                                          {"no_gpu", no_gpu},
                                                          {"old_gpu", old_gpu},
                                                          {"old_and_new_gpu", old_and_new_gpu}};

}  // namespace

int main(int argc, char** argv) {
  const auto machine = kMachines.find(argc == 2 ? argv[1] : "");
  if (machine == kMachines.end()) {
    std::cerr << "expected a kind of machine: one_gpu, two_gpus, no_driver, ...\n";
    return 2;
  }
  place = kDevicePlace;
  element_dtype = MINF_BFLOAT16;
  machine->second();
  return finish();
}
