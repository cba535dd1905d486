// What attention, estimates, plans and merging refuse on a machine with a GPU that they support:
// element types and strides that no kernel reads, memory that is not the GPU's, work memory that is
// too small.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "api_arguments.h"
#include "check.h"
#include "minference/minference.h"
#include "simt/simt.h"

namespace minference::test {

inline const Call kServed[] = {&Arguments::estimate_vertical_slash,
                               &Arguments::estimate_blocks,
                               &Arguments::plan,
                               &Arguments::count_tiles,
                               &Arguments::merge,
                               &Arguments::sparse,
                               &Arguments::prefill};
inline const Call kAttentions[] = {&Arguments::sparse, &Arguments::prefill};
/// The calls that take q, k and work memory.
inline const Call kWithQueries[] = {&Arguments::estimate_vertical_slash,
                                    &Arguments::estimate_blocks, &Arguments::sparse,
                                    &Arguments::prefill};

/// refuse_with(), and checks that no kernel was launched: a launch would have taken the error that
/// is set for the next launch.
template <typename Spoil>
void refuse_before_launch(minf_status status, Call call, Texts texts, const Spoil& spoil) {
  refuse_with(status, call, texts, [&](Arguments& arguments) {
    spoil(arguments);
    simt::machine().next_launch_error = cudaErrorUnknown;
  });
  CHECK(simt::machine().next_launch_error == cudaErrorUnknown, "launched:", *texts.begin());
  simt::machine().next_launch_error = cudaSuccess;
}

inline void nothing(Arguments&) {}

/// Keeps only the first batch entry, so that strides and wider elements stay inside their memory.
inline void keep_one_batch_entry(Arguments& a) {
  for (minf_tensor* tensor :
       {&a.q, &a.k, &a.v, &a.out, &a.lse, &a.tiles, &a.vertical_index, &a.slash_index,
        &a.index.vertical_index, &a.index.runs, &a.index.run_count, &a.index.block_index}) {
    tensor->shape[0] = 1;
  }
}

inline void test_elements() {
  for (const Call call : kWithQueries) {
    refuse_before_launch(MINF_ERROR_UNSUPPORTED, call,
                         {"q: expected dtype bfloat16 or float16 on CUDA devices, got float32"},
                         [](Arguments& a) {
                           keep_one_batch_entry(a);
                           a.q.dtype = a.k.dtype = a.v.dtype = a.out.dtype = MINF_FLOAT32;
                         });
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
      keep_one_batch_entry(a);
      a.q.stride[0] = a.k.stride[0] = a.v.stride[0] = a.out.stride[0] = 3;
    });
  }
}

inline void test_elements_of_attention() {
  for (const Call call : kAttentions) {
    refuse_before_launch(MINF_ERROR_UNSUPPORTED, call,
                         {"v: expected rows aligned to 16 bytes on CUDA devices, strides that are "
                          "multiples of 8 elements, got stride 68 in dimension 2"},
                         [](Arguments& a) { a.v.stride[2] = 68; });
    refuse_before_launch(
        MINF_ERROR_UNSUPPORTED, call,
        {"v: expected rows aligned to 16 bytes on CUDA devices, got data at address 0x"},
        [](Arguments& a) { a.v.data = shifted(a.v.data, 4); });
    refuse_before_launch(MINF_ERROR_UNSUPPORTED, call,
                         {"out: expected rows aligned to 16 bytes on CUDA devices, strides that "
                          "are multiples of 8 elements, got stride 260 in dimension 1"},
                         [](Arguments& a) {
                           keep_one_batch_entry(a);
                           a.out.stride[1] = 260;
                         });
    refuse_before_launch(
        MINF_ERROR_UNSUPPORTED, call,
        {"out: expected rows aligned to 16 bytes on CUDA devices, got data at address 0x"},
        [](Arguments& a) {
          keep_one_batch_entry(a);
          a.out.data = shifted(a.out.data, 1);
        });
    accept(call, "lse and tiles need no more than their elements' alignment", [](Arguments& a) {
      keep_one_batch_entry(a);
      a.lse.data = static_cast<float*>(a.lse.data) + 1;
      a.lse.stride[1] += 1;
      a.tiles.data = static_cast<int64_t*>(a.tiles.data) + 1;
    });
  }
}

/// Passes one byte of work memory less than was asked for.
inline void test_sizes_of_workspaces() {
  const auto bytes_of = [](Call call) {
    const Arguments a;
    std::size_t bytes = 0;
    const minf_status status =
        call == &Arguments::sparse
            ? minf_sparse_attention_workspace_bytes(&a.q, &a.k, &a.index, &a.exec, &bytes)
            : minf_prefill_attention_workspace_bytes(&a.q, &a.k, a.patterns.data(), kHeadsQ,
                                                     &a.exec, &bytes);
    CHECK(status == MINF_OK && bytes > 0, minf_last_error());
    return bytes;
  };
  for (const Call call : kAttentions) {
    const std::size_t bytes = bytes_of(call);
    refuse_before_launch(MINF_ERROR_WORKSPACE_TOO_SMALL, call,
                         {"workspace: expected at least " + std::to_string(bytes) + " bytes, got " +
                          std::to_string(bytes - 1)},
                         [&](Arguments& a) { a.work.bytes = bytes - 1; });
    accept(call, "no byte more", [&](Arguments& a) { a.work.bytes = bytes; });
  }
}

/// Arguments::merge() uses q as out_a too, and out as out_b.
inline void test_elements_of_a_merge() {
  const Call merge = &Arguments::merge;
  refuse_before_launch(
      MINF_ERROR_UNSUPPORTED, merge,
      {"out_a: expected dtype bfloat16 or float16 on CUDA devices, got float32"}, [](Arguments& a) {
        a.q.dtype = a.out.dtype = MINF_FLOAT32;
        a.q.shape[0] = a.out.shape[0] = a.lse.shape[0] = 1;  // Stay inside their memory.
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

inline void test_memory_of_the_host() {
  std::vector<std::byte> host(std::size_t{1} << 20);
  const auto expect = [&](Call call, const char* name, const auto& member) {
    refuse_before_launch(MINF_ERROR_WRONG_DEVICE, call,
                         {std::string(name) + ": expected memory of cuda:0, got host memory at 0x"},
                         [&](Arguments& a) { member(a) = host.data(); });
  };
  for (const Call call : kWithQueries) {
    expect(call, "q", [](Arguments& a) -> void*& { return a.q.data; });
    expect(call, "k", [](Arguments& a) -> void*& { return a.k.data; });
    expect(call, "workspace", [](Arguments& a) -> void*& { return a.work.data; });
  }
  for (const Call call : kAttentions) {
    expect(call, "v", [](Arguments& a) -> void*& { return a.v.data; });
    expect(call, "out", [](Arguments& a) -> void*& { return a.out.data; });
    expect(call, "lse", [](Arguments& a) -> void*& { return a.lse.data; });
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
  const Call sparse = &Arguments::sparse;
  expect(plan, "slash_index", [](Arguments& a) -> void*& { return a.slash_index.data; });
  for (const Call call : {plan, count, sparse}) {
    expect(call, "runs", [](Arguments& a) -> void*& { return a.index.runs.data; });
    expect(call, "run_count", [](Arguments& a) -> void*& { return a.index.run_count.data; });
  }
  for (const Call call : {count, Call{&Arguments::prefill}}) {
    expect(call, "tiles", [](Arguments& a) -> void*& { return a.tiles.data; });
  }
  for (const Call call : {count, sparse}) {
    expect(call, "vertical_index",
           [](Arguments& a) -> void*& { return a.index.vertical_index.data; });
    expect(call, "block_index", [](Arguments& a) -> void*& { return a.index.block_index.data; });
  }
}

}  // namespace minference::test
