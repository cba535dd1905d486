// Legal arguments for every function of the C surface, in the memory under test, and checks for a
// call that is refused because of spoilt ones.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "check.h"
#include "minference/minference.h"
#include "patterns.h"
#include "test_tensor.h"

namespace minference::test {

inline constexpr int64_t kBatch = 2, kSeqlenQ = 70, kSeqlenK = 100, kHeadsQ = 4, kHeadsKv = 2;
inline constexpr int64_t kHeadDim = 64, kRowBlocks = 2, kKeyBlocks = 2, kMaxRuns = 2;

/// Element type of q, k, v and out. A test program for another place sets it with the place.
inline int32_t element_dtype = MINF_FLOAT32;

inline int64_t element_bytes() { return static_cast<int64_t>(dtype_bytes(element_dtype)); }
inline std::string element_name() { return element_dtype == MINF_FLOAT32 ? "float32" : "bfloat16"; }

inline bool on_cuda() { return place.device_type == MINF_DEVICE_CUDA; }
/// The arguments' device, and the device that send_elsewhere() claims, as messages name them.
inline std::string here() { return on_cuda() ? "cuda:0" : "cpu"; }
inline std::string elsewhere() { return on_cuda() ? "cpu" : "cuda:1"; }
inline void send_elsewhere(minf_tensor& tensor) {
  tensor.device_type = on_cuda() ? MINF_DEVICE_CPU : MINF_DEVICE_CUDA;
  tensor.device_index = on_cuda() ? 0 : 1;
}

/// A pointer moved by `elements` of q's dtype.
inline void* shifted(void* data, int64_t elements) {
  return static_cast<std::byte*>(data) + elements * element_bytes();
}

/// Work memory, the same for all cases: its contents mean nothing between calls.
struct WorkMemory {
  WorkMemory() {
    static void* const memory = place.allocate(kBytes);
    data = memory;
  }

  static constexpr std::size_t kBytes = std::size_t{4} << 20;
  void* data;
  std::size_t bytes = kBytes;
};

/// Legal arguments for every function; a case spoils one of them.
struct Arguments {
  TestTensor q_memory{element_dtype, {kBatch, kSeqlenQ, kHeadsQ, kHeadDim}};
  TestTensor k_memory{element_dtype, {kBatch, kSeqlenK, kHeadsKv, kHeadDim}};
  TestTensor v_memory{element_dtype, {kBatch, kSeqlenK, kHeadsKv, kHeadDim}};
  TestTensor out_memory{element_dtype, {kBatch, kSeqlenQ, kHeadsQ, kHeadDim}};
  TestTensor lse_memory{MINF_FLOAT32, {kBatch, kHeadsQ, kSeqlenQ}};
  TestTensor tiles_memory{MINF_INT64, {kBatch, kHeadsQ}};
  TestTensor vertical_memory{MINF_INT32, {kBatch, kHeadsQ, 40}};
  TestTensor slash_memory{MINF_INT32, {kBatch, kHeadsQ, 100}};
  TestTensor runs_memory{MINF_INT32, {kBatch, kHeadsQ, kMaxRuns, 2}};
  TestTensor run_count_memory{MINF_INT32, {kBatch, kHeadsQ}};
  TestTensor block_memory{MINF_INT32, {kBatch, kHeadsQ, kRowBlocks, 2}};

  minf_tensor q, k, v, out, lse, tiles, vertical_index, slash_index;
  std::vector<minf_pattern> patterns = {minference::test::dense(), minference::test::a_shape(4, 16),
                                        minference::test::vertical_slash(40, 100),
                                        minference::test::block_sparse(2)};
  minf_vertical_slash_options estimate = minf_vertical_slash_options_default();
  minf_block_sparse_options blocks = minf_block_sparse_options_default();
  minf_attention_options options{sizeof(minf_attention_options), nullptr};
  minf_sparse_index index{};
  minf_exec exec{};
  WorkMemory work;

  Arguments() {
    for (TestTensor* input : {&q_memory, &k_memory, &v_memory}) input->fill(std::byte{0});
    for (int64_t b = 0; b < kBatch; ++b) {
      for (int64_t h = 0; h < kHeadsQ; ++h) fill_indices(b, h);
    }
    q = q_memory.view(), k = k_memory.view(), v = v_memory.view();
    out = out_memory.view(), lse = lse_memory.view(), tiles = tiles_memory.view();
    vertical_index = vertical_memory.view(), slash_index = slash_memory.view();
    exec.struct_size = sizeof exec;
    exec.num_threads = 2;
    index.struct_size = sizeof index;
    index.patterns = patterns.data();
    index.num_patterns = kHeadsQ;
    index.vertical_index = vertical_index;
    index.runs = runs_memory.view();
    index.run_count = run_count_memory.view();
    index.block_index = block_memory.view();
  }

  void fill_indices(int64_t b, int64_t h) {
    for (int i = 0; i < 40; ++i) vertical_memory.set({b, h, i}, i < 38 ? 2 * i : -1);
    for (int i = 0; i < 100; ++i) slash_memory.set({b, h, i}, i < 50 ? 2 * i : -1);
    const int32_t runs[kMaxRuns][2] = {{3, 67}, {80, 208}};
    for (int i = 0; i < kMaxRuns; ++i) {
      for (int j = 0; j < 2; ++j) runs_memory.set({b, h, i, j}, runs[i][j]);
    }
    run_count_memory.set({b, h}, 2);
    for (int r = 0; r < kRowBlocks; ++r) {
      for (int i = 0; i < 2; ++i) block_memory.set({b, h, r, i}, i);
    }
  }

  /// All memory that calls may write.
  std::vector<std::vector<std::byte>> outputs() const {
    return {out_memory.copy(),       lse_memory.copy(),   tiles_memory.copy(),
            vertical_memory.copy(),  slash_memory.copy(), runs_memory.copy(),
            run_count_memory.copy(), block_memory.copy()};
  }

  minf_status prefill() {
    return minf_prefill_attention(&q, &k, &v, patterns.data(),
                                  static_cast<int64_t>(patterns.size()), &options, &out, &lse,
                                  &tiles, work.data, work.bytes, &exec);
  }
  minf_status sparse() {
    return minf_sparse_attention(&q, &k, &v, &index, &options, &out, &lse, work.data, work.bytes,
                                 &exec);
  }
  minf_status count_tiles() {
    return minf_count_key_tiles(kBatch, kHeadsQ, kSeqlenQ, kSeqlenK, &index, &tiles, &exec);
  }
  minf_status estimate_vertical_slash() {
    return minf_estimate_vertical_slash(&q, &k, &estimate, &vertical_index, &slash_index, work.data,
                                        work.bytes, &exec);
  }
  minf_status estimate_blocks() {
    return minf_estimate_block_sparse(&q, &k, &blocks, &index.block_index, work.data, work.bytes,
                                      &exec);
  }
  minf_status plan() {
    return minf_plan_vertical_slash(&slash_index, kSeqlenK, &index.runs, &index.run_count, &exec);
  }
  /// In place: merges out with itself.
  minf_status merge() { return minf_merge_attention(&q, &lse, &out, &lse, &out, &lse, &exec); }
};

using Call = minf_status (Arguments::*)();
using Texts = std::initializer_list<std::string>;

/// Checks the message of a refused call, and that the call wrote nothing.
inline void check_refusal(minf_status wanted, minf_status got, Texts texts) {
  const std::string message = minf_last_error();
  CHECK(got == wanted, "wanted:", *texts.begin(), "got status", got, "text:", message);
  for (const std::string& text : texts) {
    CHECK(message.find(text) != std::string::npos, "wanted:", text, "text:", message);
  }
}

/// Spoils legal arguments, calls, and expects the refusal; nothing may have been written.
template <typename Spoil>
void refuse_with(minf_status status, Call call, Texts texts, const Spoil& spoil) {
  Arguments arguments;
  spoil(arguments);
  const auto before = arguments.outputs();
  check_refusal(status, (arguments.*call)(), texts);
  CHECK(arguments.outputs() == before, "written despite:", minf_last_error());
}

template <typename Spoil>
void refuse(Call call, Texts texts, const Spoil& spoil) {
  refuse_with(MINF_ERROR_INVALID_ARGUMENT, call, texts, spoil);
}

/// Changes legal arguments and expects success.
template <typename Change>
void accept(Call call, const char* what, const Change& change) {
  Arguments arguments;
  change(arguments);
  CHECK((arguments.*call)() == MINF_OK, what, minf_last_error());
}

}  // namespace minference::test
