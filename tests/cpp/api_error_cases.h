// What every call refuses before it asks for a backend, and what looks wrong but is legal; the same
// for tensors in any memory. Each case checks the status, a text with argument, expected and got,
// and that outputs are unchanged.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <string>

#include "api_arguments.h"

namespace minference::test {

inline constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

inline void test_legal_arguments() {
  const auto nothing = [](Arguments&) {};
  accept(&Arguments::prefill, "prefill", nothing);
  accept(&Arguments::sparse, "sparse", nothing);
  accept(&Arguments::count_tiles, "count_tiles", nothing);
  accept(&Arguments::estimate_vertical_slash, "estimate_vertical_slash", nothing);
  accept(&Arguments::estimate_blocks, "estimate_blocks", nothing);
  accept(&Arguments::plan, "plan", nothing);
  accept(&Arguments::merge, "merge", nothing);
}

inline void test_tensors() {
  const Call prefill = &Arguments::prefill;
  refuse(prefill, {"q: expected 4 dimensions, got 3"}, [](Arguments& a) { a.q.ndim = 3; });
  refuse(prefill, {"k: expected 4 dimensions, got -7"}, [](Arguments& a) { a.k.ndim = -7; });
  refuse(prefill, {"out: expected 4 dimensions, got 0"}, [](Arguments& a) { a.out.ndim = 0; });
  refuse(prefill, {"lse: expected 3 dimensions, got 2"}, [](Arguments& a) { a.lse.ndim = 2; });
  refuse(prefill, {"v: expected 4 dimensions, got 1000"}, [](Arguments& a) { a.v.ndim = 1000; });

  refuse(prefill, {"q: expected dtype float32 or bfloat16 or float16, got int32"},
         [](Arguments& a) { a.q.dtype = MINF_INT32; });
  refuse(prefill, {"q: expected dtype", "got an unknown dtype (77)"},
         [](Arguments& a) { a.q.dtype = 77; });
  refuse(prefill, {"k: expected dtype " + element_name() + " like q, got float16"},
         [](Arguments& a) { a.k.dtype = MINF_FLOAT16; });
  refuse(prefill, {"v: expected dtype " + element_name() + " like q, got float16"},
         [](Arguments& a) { a.v.dtype = MINF_FLOAT16; });
  refuse(prefill, {"out: expected dtype " + element_name() + " like q, got float16"},
         [](Arguments& a) { a.out.dtype = MINF_FLOAT16; });
  refuse(prefill, {"lse: expected dtype float32, got float16"},
         [](Arguments& a) { a.lse.dtype = MINF_FLOAT16; });
  refuse(prefill, {"tiles: expected dtype int64, got int32"},
         [](Arguments& a) { a.tiles.dtype = MINF_INT32; });

  refuse(prefill, {"k: expected a tensor on " + here() + " like q, got one on " + elsewhere()},
         [](Arguments& a) { send_elsewhere(a.k); });
  refuse(prefill, {"lse: expected a tensor on " + here() + " like q, got one on " + elsewhere()},
         [](Arguments& a) { send_elsewhere(a.lse); });
  refuse(prefill, {"tiles: expected a tensor on " + here() + " like q, got one on " + elsewhere()},
         [](Arguments& a) { send_elsewhere(a.tiles); });
  refuse(prefill, {"q: expected device_type", "got 5"}, [](Arguments& a) { a.q.device_type = 5; });
  refuse(prefill, {"k: expected a tensor on cuda:0 like q, got one on cuda:1"}, [](Arguments& a) {
    a.q.device_type = a.k.device_type = MINF_DEVICE_CUDA;
    a.k.device_index = 1;
  });
}

inline void test_null_pointers() {
  Arguments a;
  const auto expect_null = [](minf_status status, const char* text) {
    CHECK(status == MINF_ERROR_INVALID_ARGUMENT && std::strstr(minf_last_error(), text) != nullptr,
          "wanted:", text, "got:", minf_last_error());
  };
  void* const work = a.work.data;
  const std::size_t bytes = a.work.bytes;
  const auto prefill = [&](const minf_tensor* q, const minf_tensor* k, const minf_tensor* v,
                           const minf_pattern* patterns, const minf_tensor* out) {
    return minf_prefill_attention(q, k, v, patterns, kHeadsQ, nullptr, out, nullptr, nullptr, work,
                                  bytes, nullptr);
  };
  const minf_pattern* const patterns = a.patterns.data();
  expect_null(prefill(nullptr, &a.k, &a.v, patterns, &a.out), "q: expected a tensor, got null");
  expect_null(prefill(&a.q, nullptr, &a.v, patterns, &a.out), "k: expected a tensor, got null");
  expect_null(prefill(&a.q, &a.k, nullptr, patterns, &a.out), "v: expected a tensor, got null");
  expect_null(prefill(&a.q, &a.k, &a.v, nullptr, &a.out), "patterns: expected an array, got null");
  expect_null(prefill(&a.q, &a.k, &a.v, patterns, nullptr), "out: expected a tensor, got null");
  expect_null(minf_sparse_attention(&a.q, &a.k, &a.v, nullptr, nullptr, &a.out, nullptr, work,
                                    bytes, nullptr),
              "index: expected a struct, got null");
  expect_null(minf_estimate_vertical_slash(&a.q, &a.k, nullptr, nullptr, &a.slash_index, work,
                                           bytes, nullptr),
              "vertical_index: expected a tensor, got null");
  expect_null(minf_estimate_block_sparse(&a.q, &a.k, nullptr, nullptr, work, bytes, nullptr),
              "block_index: expected a tensor, got null");
  expect_null(minf_plan_vertical_slash(nullptr, 1, &a.index.runs, &a.index.run_count, nullptr),
              "slash_index: expected a tensor, got null");
  expect_null(minf_count_key_tiles(1, 4, 1, 1, &a.index, nullptr, nullptr),
              "tiles: expected a tensor, got null");
  expect_null(minf_merge_attention(&a.q, &a.lse, &a.out, &a.lse, &a.out, nullptr, nullptr),
              "lse: expected a tensor, got null");
  expect_null(minf_estimate_vertical_slash_workspace_bytes(&a.q, &a.k, nullptr, nullptr, nullptr),
              "bytes: expected a pointer for the result, got null");
}

inline void test_shapes() {
  const Call prefill = &Arguments::prefill;
  refuse(prefill, {"q: expected head_dim 8 to 256, got 0"}, [](Arguments& a) { a.q.shape[3] = 0; });
  refuse(prefill, {"q: expected head_dim 8 to 256, got 257"},
         [](Arguments& a) { a.q.shape[3] = 257; });
  refuse_with(MINF_ERROR_UNSUPPORTED, prefill,
              {"q: expected head_dim to be a multiple of 8, got 60"},
              [](Arguments& a) { a.q.shape[3] = 60; });
  refuse(prefill,
         {"k: expected shape [batch, seqlen_k, num_heads_kv, head_dim]",
          "[2, any, any, 64], got [2, 100, 2, 32]"},
         [](Arguments& a) { a.k.shape[3] = 32; });
  refuse(prefill, {"k: expected shape", "got [1, 100, 2, 64]"},
         [](Arguments& a) { a.k.shape[0] = 1; });
  refuse(prefill,
         {"v: expected shape [batch, seqlen_k, num_heads_kv, head_dim_v] = [2, 100, 2, any], got "
          "[2, 99, 2, 64]"},
         [](Arguments& a) { a.v.shape[1] = 99; });
  refuse(prefill,
         {"out: expected shape [batch, seqlen_q, num_heads_q, head_dim_v] = [2, 70, 4, 64], got "
          "[2, 70, 3, 64]"},
         [](Arguments& a) { a.out.shape[2] = 3; });
  refuse(prefill, {"out: expected shape", "[2, 70, 4, 48], got [2, 70, 4, 64]"},
         [](Arguments& a) { a.v.shape[3] = 48; });
  refuse(prefill, {"v: expected head_dim_v 8 to 256, got 0"},
         [](Arguments& a) { a.v.shape[3] = 0; });
  refuse(prefill, {"v: expected head_dim_v 8 to 256, got 257"},
         [](Arguments& a) { a.v.shape[3] = 257; });
  refuse_with(MINF_ERROR_UNSUPPORTED, prefill,
              {"v: expected head_dim_v to be a multiple of 8, got 60"},
              [](Arguments& a) { a.v.shape[3] = a.out.shape[3] = 60; });
  for (const Call call : {&Arguments::prefill, &Arguments::sparse}) {
    accept(call, "a head_dim_v of its own",
           [](Arguments& a) { a.v.shape[3] = a.out.shape[3] = 48; });
  }
  refuse(prefill,
         {"lse: expected shape [batch, num_heads_q, seqlen_q] = [2, 4, 70], got [2, 4, 69]"},
         [](Arguments& a) { a.lse.shape[2] = 69; });
  refuse(prefill, {"tiles: expected shape [batch, num_heads_q] = [2, 4], got [2, 3]"},
         [](Arguments& a) { a.tiles.shape[1] = 3; });
  refuse(prefill, {"q: expected a multiple of the 2 heads of k, got 3 heads"},
         [](Arguments& a) { a.q.shape[2] = a.out.shape[2] = 3; });
  refuse(prefill, {"k: expected at least 1 head, got 0"},
         [](Arguments& a) { a.k.shape[2] = a.v.shape[2] = 0; });
  refuse(prefill, {"q: expected at least 1 head, got 0"}, [](Arguments& a) { a.q.shape[2] = 0; });
  refuse(prefill, {"q: expected seqlen_q <= seqlen_k = 69, got 70"},
         [](Arguments& a) { a.k.shape[1] = a.v.shape[1] = 69; });
  refuse(prefill, {"q: expected seqlen_q <= seqlen_k = 0, got 70"},
         [](Arguments& a) { a.k.shape[1] = a.v.shape[1] = 0; });
  refuse(prefill, {"q: expected sizes in [0, 1073741824], got shape [2, -1, 4, 64]"},
         [](Arguments& a) { a.q.shape[1] = -1; });
  refuse(prefill, {"k: expected sizes in [0, 1073741824]", "9223372036854775807"},
         [](Arguments& a) { a.k.shape[1] = INT64_MAX; });
  refuse(prefill, {"q: expected batch * heads <= 1048576, got 1073741824 * 4"}, [](Arguments& a) {
    a.q.shape[0] = int64_t{1} << 30;
    a.q.stride[0] = 0;
  });
}

inline void test_strides_and_memory() {
  const Call prefill = &Arguments::prefill;
  refuse(prefill, {"q: expected innermost stride 1, got strides [17920, 256, 64, 2]"},
         [](Arguments& a) { a.q.stride[3] = 2; });
  refuse(prefill, {"lse: expected innermost stride 1"}, [](Arguments& a) { a.lse.stride[2] = 4; });
  refuse(prefill, {"k: expected strides >= 0, got [12800, -128, 64, 1]"},
         [](Arguments& a) { a.k.stride[1] = -128; });
  refuse(prefill,
         {"v: expected the last element at most 288230376151711744 elements after the first"},
         [](Arguments& a) { a.v.stride[1] = INT64_MAX; });
  refuse(prefill, {"v: expected the last element at most"},
         [](Arguments& a) { a.v.stride[0] = a.v.stride[1] = int64_t{1} << 52; });
  refuse(prefill, {"out: expected strides that give every element its own memory"},
         [](Arguments& a) { a.out.stride[1] = 0; });
  refuse(prefill, {"out: expected strides that give every element its own memory"},
         [](Arguments& a) { a.out.stride[1] = a.out.stride[2]; });
  refuse(prefill, {"lse: expected strides that give every element its own memory"},
         [](Arguments& a) { a.lse.stride[0] = 0; });
  refuse(prefill, {"tiles: expected strides that give every element its own memory"},
         [](Arguments& a) { a.tiles.stride[0] = 1; });

  refuse(prefill, {"q: expected memory for shape [2, 70, 4, 64], got data = null"},
         [](Arguments& a) { a.q.data = nullptr; });
  refuse(prefill, {"out: expected memory for shape"}, [](Arguments& a) { a.out.data = nullptr; });
  refuse(prefill, {"lse: expected data aligned to 4 bytes"},
         [](Arguments& a) { a.lse.data = static_cast<char*>(a.lse.data) + 2; });
  refuse(prefill, {"tiles: expected data aligned to 8 bytes"},
         [](Arguments& a) { a.tiles.data = static_cast<char*>(a.tiles.data) + 4; });
  refuse(
      prefill,
      {"k: expected " + std::to_string(kBatch * kSeqlenK * kHeadsKv * kHeadDim * element_bytes()) +
       " bytes of memory from data on, got address"},
      [](Arguments& a) { a.k.data = std::bit_cast<void*>(UINTPTR_MAX - 1023); });
}

inline void test_overlap() {
  const Call prefill = &Arguments::prefill;
  refuse(prefill, {"out: expected memory that does not overlap q, got"},
         [](Arguments& a) { a.out.data = a.q.data; });
  refuse(prefill, {"out: expected memory that does not overlap v"}, [](Arguments& a) {
    a.out.data = shifted(a.v.data, kBatch * kSeqlenK * kHeadsKv * kHeadDim - 1);
  });
  refuse(prefill, {"out: expected memory that does not overlap v"}, [](Arguments& a) {
    a.v.data = shifted(a.out.data, kBatch * kSeqlenQ * kHeadsQ * kHeadDim - 1);
  });
  refuse(prefill, {"out: expected memory that does not overlap lse"},
         [](Arguments& a) { a.lse.data = shifted(a.out.data, 100); });
  refuse(prefill, {"lse: expected memory that does not overlap k"},
         [](Arguments& a) { a.lse.data = a.k.data; });
  refuse(prefill, {"tiles: expected memory that does not overlap out"},
         [](Arguments& a) { a.tiles.data = a.out.data; });
  refuse(&Arguments::sparse, {"out: expected memory that does not overlap block_index"},
         [](Arguments& a) { a.index.block_index.data = a.out.data; });
  refuse(&Arguments::sparse, {"lse: expected memory that does not overlap vertical_index"},
         [](Arguments& a) { a.index.vertical_index.data = a.lse.data; });
  refuse(&Arguments::estimate_vertical_slash,
         {"vertical_index: expected memory that does not overlap slash_index"},
         [](Arguments& a) { a.vertical_index.data = a.slash_index.data; });
  refuse(&Arguments::estimate_blocks, {"block_index: expected memory that does not overlap k"},
         [](Arguments& a) { a.index.block_index.data = a.k.data; });
  refuse(&Arguments::plan, {"runs: expected memory that does not overlap slash_index"},
         [](Arguments& a) { a.index.runs.data = a.slash_index.data; });
  refuse(&Arguments::count_tiles, {"tiles: expected memory that does not overlap runs"},
         [](Arguments& a) { a.tiles.data = a.index.runs.data; });
  refuse(&Arguments::merge, {"out: expected memory that does not overlap lse"},
         [](Arguments& a) { a.lse.data = a.out.data; });
  refuse(&Arguments::merge, {"lse: expected memory that does not overlap out_a"},
         [](Arguments& a) { a.lse.data = a.q.data; });
  refuse(&Arguments::merge, {"out: expected memory that does not overlap out_a"}, [](Arguments& a) {
    a.q = a.out;  // out_a; shifted by one row against out.
    a.q.data = shifted(a.q.data, kHeadsQ * kHeadDim);
    a.q.shape[0] = a.out.shape[0] = a.lse.shape[0] = 1;
  });
}

/// q and out are views of one buffer [batch, seqlen, 2 * heads, head_dim].
inline void test_views_of_one_buffer() {
  TestTensor buffer(element_dtype, {kBatch, kSeqlenQ, 2 * kHeadsQ, kHeadDim});
  buffer.fill(std::byte{0});
  const auto heads_of = [&](int64_t first_head, int64_t step) {
    minf_tensor view = buffer.view();
    view.data = shifted(view.data, first_head * kHeadDim);
    view.shape[2] = kHeadsQ;
    view.stride[2] *= step;
    return view;
  };
  const Call prefill = &Arguments::prefill;
  accept(prefill, "halves of the heads", [&](Arguments& a) {
    a.q = heads_of(0, 1);
    a.out = heads_of(kHeadsQ, 1);
  });
  accept(prefill, "even and odd heads", [&](Arguments& a) {
    a.q = heads_of(1, 2);
    a.out = heads_of(0, 2);
  });
  refuse(prefill, {"out: expected memory that does not overlap q"}, [&](Arguments& a) {
    a.q = heads_of(0, 1);
    a.out = heads_of(kHeadsQ - 1, 1);  // One head in common.
  });
  refuse(prefill, {"out: expected memory that does not overlap q"}, [&](Arguments& a) {
    a.q = heads_of(0, 2);
    a.out = heads_of(1, 1);  // Heads 2 and 4 in common.
  });
}

inline void test_patterns() {
  const Call prefill = &Arguments::prefill;
  refuse(prefill, {"num_patterns: expected num_heads_q = 4 or 1, got 3"},
         [](Arguments& a) { a.patterns.resize(3); });
  refuse(prefill, {"num_patterns: expected num_heads_q = 4 or 1, got 0"}, [](Arguments& a) {
    a.patterns.reserve(4);
    a.patterns.clear();
  });
  refuse(prefill, {"patterns[1]: expected a kind in [0, 4], got 5"},
         [](Arguments& a) { a.patterns[1].kind = 5; });
  refuse(prefill, {"patterns[0]: expected a kind in [0, 4], got -1"},
         [](Arguments& a) { a.patterns[0].kind = -1; });
  refuse(prefill, {"patterns[0] (dense): expected 0 in every byte that dense does not use, got 1"},
         [](Arguments& a) { a.patterns[0].as.a_shape.sink = 1; });
  refuse(prefill, {"patterns[1] (a_shape): expected sink >= 0, got -1"},
         [](Arguments& a) { a.patterns[1].as.a_shape.sink = -1; });
  refuse(prefill, {"patterns[1] (a_shape): expected window >= 0, got -2"},
         [](Arguments& a) { a.patterns[1].as.a_shape.window = -2; });
  refuse(prefill, {"patterns[1] (a_shape): expected 0 in every byte", "got 3 at offset 16"},
         [](Arguments& a) { a.patterns[1].as.tri_shape.last = 3; });
  refuse(prefill, {"patterns[1] (a_shape): expected 0 in every byte", "got 9 at offset 63"},
         [](Arguments& a) { a.patterns[1].as.bytes[55] = 9; });
  refuse(prefill, {"patterns[3] (block_sparse): expected 0 in every byte", "got 7 at offset 4"},
         [](Arguments& a) { a.patterns[3].reserved = 7; });
  refuse(prefill, {"patterns[2] (vertical_slash): expected vertical_size >= 0, got -1"},
         [](Arguments& a) { a.patterns[2].as.vertical_slash.vertical_size = -1; });
  refuse(prefill, {"patterns[2] (vertical_slash): expected slash_size >= 0, got -1"},
         [](Arguments& a) { a.patterns[2].as.vertical_slash.slash_size = -1; });
  refuse(prefill, {"patterns[2] (vertical_slash): last_q: expected 1 to 64, got 65"},
         [](Arguments& a) { a.patterns[2].as.vertical_slash.last_q = 65; });
  refuse(prefill, {"patterns[2] (vertical_slash): expected sink >= 0, got -1"},
         [](Arguments& a) { a.patterns[2].as.vertical_slash.sink = -1; });
  refuse(prefill, {"patterns[2] (vertical_slash): expected local >= 0, got -2"},
         [](Arguments& a) { a.patterns[2].as.vertical_slash.local = -2; });
  refuse(prefill, {"patterns[2] (vertical_slash): expected 0 in every byte", "got 5 at offset 28"},
         [](Arguments& a) { a.patterns[2].as.vertical_slash.reserved = 5; });
  refuse(prefill, {"patterns[2] (vertical_slash): vertical_p: expected a share in (0, 1], got 0"},
         [](Arguments& a) { a.patterns[2].as.vertical_slash.vertical_p = 0; });
  refuse(prefill, {"patterns[2] (vertical_slash): slash_p: expected a share in (0, 1], got nan"},
         [](Arguments& a) { a.patterns[2].as.vertical_slash.slash_p = kNan; });
  refuse(prefill, {"patterns[3] (block_sparse): expected top_k >= 1, got 0"},
         [](Arguments& a) { a.patterns[3].as.block_sparse.top_k = 0; });
  refuse(prefill, {"patterns[3] (block_sparse): top_p: expected a share in (0, 1], got 2"},
         [](Arguments& a) { a.patterns[3].as.block_sparse.top_p = 2; });
  refuse(prefill, {"patterns[0] (tri_shape): expected last >= 0, got -9"},
         [](Arguments& a) { a.patterns[0] = minference::test::tri_shape(1, 2, -9); });
  accept(&Arguments::sparse, "fields of patterns with index lists are not read", [](Arguments& a) {
    a.patterns[2].as.vertical_slash.vertical_size = -5;
    a.patterns[3].as.block_sparse.top_k = -5;
  });
  refuse(&Arguments::sparse, {"patterns[1] (a_shape): expected sink >= 0, got -1"},
         [](Arguments& a) { a.patterns[1].as.a_shape.sink = -1; });
}

/// A struct of this library, followed by the fields of a newer one.
template <typename Struct>
struct Newer {
  explicit Newer(const Struct& known) : known(known) { this->known.struct_size = sizeof(Newer); }

  Struct known;
  unsigned char more[64] = {};
};

/// A struct of a newer header is accepted if its new fields are 0.
inline void test_newer_structs() {
  const auto with = [](Arguments& a, const minf_exec& exec, const minf_attention_options& options,
                       const minf_sparse_index& index) {
    return minf_sparse_attention(&a.q, &a.k, &a.v, &index, &options, &a.out, &a.lse, a.work.data,
                                 a.work.bytes, &exec);
  };
  Arguments a;
  Newer<minf_exec> exec(a.exec);
  Newer<minf_attention_options> options(a.options);
  Newer<minf_sparse_index> index(a.index);
  CHECK(with(a, exec.known, options.known, index.known) == MINF_OK, minf_last_error());
  const auto refused = [&](unsigned char& byte, const char* text) {
    byte = 5;
    CHECK(with(a, exec.known, options.known, index.known) == MINF_ERROR_INVALID_ARGUMENT, text);
    CHECK(std::strstr(minf_last_error(), text) != nullptr, minf_last_error());
    CHECK(std::strstr(minf_last_error(), "does not know, got 5") != nullptr, minf_last_error());
    byte = 0;
  };
  refused(exec.more[0], "exec: expected 0 in the bytes that version ");
  refused(options.more[63], "attention options: expected 0 in the bytes that version ");
  refused(index.more[9], "index: expected 0 in the bytes that version ");

  Newer<minf_vertical_slash_options> estimate(a.estimate);
  const auto estimate_with = [&] {
    return minf_estimate_vertical_slash(&a.q, &a.k, &estimate.known, &a.vertical_index,
                                        &a.slash_index, a.work.data, a.work.bytes, &exec.known);
  };
  CHECK(estimate_with() == MINF_OK, minf_last_error());
  estimate.more[1] = 1;
  CHECK(estimate_with() == MINF_ERROR_INVALID_ARGUMENT, minf_last_error());
}

inline void test_options() {
  const Call prefill = &Arguments::prefill;
  const Call estimate = &Arguments::estimate_vertical_slash;
  refuse(estimate, {"vertical_slash options: expected struct_size >= ", ", got 0"},
         [](Arguments& a) { a.estimate.struct_size = 0; });
  refuse(prefill, {"attention options: expected struct_size >= 16, got 15"},
         [](Arguments& a) { a.options.struct_size = 15; });
  refuse(&Arguments::estimate_blocks, {"block_sparse options: expected struct_size >= 24, got 8"},
         [](Arguments& a) { a.blocks.struct_size = 8; });
  refuse(&Arguments::sparse, {"index: expected struct_size >= "},
         [](Arguments& a) { a.index.struct_size -= 1; });
  refuse(prefill, {"exec: expected struct_size >= "}, [](Arguments& a) { a.exec.struct_size = 8; });
  test_newer_structs();
  refuse(prefill, {"exec: expected num_threads in [0, 4096], got -1"},
         [](Arguments& a) { a.exec.num_threads = -1; });
  refuse(prefill, {"exec: expected num_threads in [0, 4096], got 4097"},
         [](Arguments& a) { a.exec.num_threads = 4097; });
  refuse(prefill, {"exec: expected reserved = 0, got 1"},
         [](Arguments& a) { a.exec.reserved = 1; });

  refuse(estimate, {"last_q: expected 1 to 64, got 0"},
         [](Arguments& a) { a.estimate.last_q = 0; });
  refuse(estimate, {"last_q: expected 1 to 64, got 65"},
         [](Arguments& a) { a.estimate.last_q = 65; });
  refuse(estimate, {"sink: expected >= 0, got -1"}, [](Arguments& a) { a.estimate.sink = -1; });
  refuse(estimate, {"local: expected >= 0, got -2"}, [](Arguments& a) { a.estimate.local = -2; });
  refuse(estimate, {"vertical_slash options: expected reserved = 0, got 4"},
         [](Arguments& a) { a.estimate.reserved = 4; });
  refuse(estimate, {"vertical_p: expected a share in (0, 1], got 0"},
         [](Arguments& a) { a.estimate.vertical_p = 0; });
  refuse(estimate, {"slash_p: expected a share in (0, 1], got 1.5"},
         [](Arguments& a) { a.estimate.slash_p = 1.5; });
  refuse(estimate, {"slash_p: expected a share in (0, 1], got nan"},
         [](Arguments& a) { a.estimate.slash_p = kNan; });
  refuse(&Arguments::estimate_blocks, {"top_p: expected a share in (0, 1], got -1"},
         [](Arguments& a) { a.blocks.top_p = -1; });

  for (const double& scale : {kNan, kInfinity, -kInfinity, 1e300}) {
    refuse(prefill, {"softmax_scale: expected a finite float32, got "},
           [&](Arguments& a) { a.options.softmax_scale = &scale; });
    refuse(&Arguments::sparse, {"softmax_scale: expected a finite float32, got "},
           [&](Arguments& a) { a.options.softmax_scale = &scale; });
    refuse(estimate, {"softmax_scale: expected a finite float32, got "},
           [&](Arguments& a) { a.estimate.softmax_scale = &scale; });
    refuse(&Arguments::estimate_blocks, {"softmax_scale: expected a finite float32, got "},
           [&](Arguments& a) { a.blocks.softmax_scale = &scale; });
  }
}

/// For calls that need work memory here.
inline void test_workspace(std::initializer_list<Call> calls) {
  for (const Call call : calls) {
    refuse_with(MINF_ERROR_WORKSPACE_TOO_SMALL, call,
                {"workspace: expected at least ", " bytes, got 1"},
                [](Arguments& a) { a.work.bytes = 1; });
    refuse_with(MINF_ERROR_WORKSPACE_TOO_SMALL, call,
                {"workspace: expected at least ", " bytes, got null"},
                [](Arguments& a) { a.work.data = nullptr; });
  }
}

inline void test_index_tensors() {
  const Call sparse = &Arguments::sparse;
  refuse(sparse,
         {"vertical_index: expected a tensor because some head is vertical_slash, got none"},
         [](Arguments& a) { a.index.vertical_index.ndim = 0; });
  refuse(sparse, {"run_count: expected a tensor because some head is vertical_slash, got none"},
         [](Arguments& a) { a.index.run_count.ndim = 0; });
  refuse(&Arguments::count_tiles,
         {"block_index: expected a tensor because some head is block_sparse, got none"},
         [](Arguments& a) { a.index.block_index.ndim = 0; });
  accept(sparse, "lists that no head needs", [](Arguments& a) {
    a.patterns.assign(4, minference::test::dense());
    a.index.patterns = a.patterns.data();
    for (minf_tensor* tensor :
         {&a.index.vertical_index, &a.index.runs, &a.index.run_count, &a.index.block_index}) {
      *tensor = {};
    }
  });
  refuse(sparse, {"vertical_index: expected dtype int32, got int64"},
         [](Arguments& a) { a.index.vertical_index.dtype = MINF_INT64; });
  refuse(sparse, {"runs: expected shape [batch, num_heads_q, max_runs, 2] = [2, 4, any, 2], got "},
         [](Arguments& a) { a.index.runs.shape[3] = 1; });
  refuse(sparse, {"runs: expected (lo, hi) pairs one after the other, stride 2", "got stride 1"},
         [](Arguments& a) { a.index.runs.stride[2] = 1; });
  refuse(sparse, {"block_index: expected shape [batch, num_heads_q, ceil(seqlen_q / 64), top_k]"},
         [](Arguments& a) { a.index.block_index.shape[2] = 1; });
  refuse(sparse,
         {"run_count: expected a tensor on " + here() + " like q, got one on " + elsewhere()},
         [](Arguments& a) { send_elsewhere(a.index.run_count); });
  refuse(&Arguments::count_tiles,
         {"runs: expected a tensor on " + here() + " like tiles, got one on " + elsewhere()},
         [](Arguments& a) { send_elsewhere(a.index.runs); });
  refuse(sparse, {"vertical_index: expected memory"},
         [](Arguments& a) { a.index.vertical_index.data = nullptr; });

  const Call estimate = &Arguments::estimate_vertical_slash;
  refuse(estimate, {"vertical_index: expected a size in [30, seqlen_k = 100], got 29"},
         [](Arguments& a) { a.vertical_index.shape[2] = 29; });
  refuse(estimate, {"slash_index: expected a size in [100, seqlen_k = 100], got 99"},
         [](Arguments& a) { a.slash_index.shape[2] = 99; });
  refuse(estimate, {"slash_index: expected a size in [100, seqlen_k = 100], got 101"},
         [](Arguments& a) { a.slash_index.shape[2] = 101; });
  refuse(estimate, {"slash_index: expected shape [batch, num_heads_q, size] = [2, 4, any]"},
         [](Arguments& a) { a.slash_index.shape[1] = 2; });
  refuse(&Arguments::estimate_blocks, {"block_index: expected top_k >= 1, got 0"},
         [](Arguments& a) { a.index.block_index.shape[3] = 0; });
  refuse(&Arguments::plan,
         {"runs: expected max_runs >= 2 for 100 distances below seqlen_k = 100, got 1"},
         [](Arguments& a) { a.index.runs.shape[2] = 1; });
}

inline void test_lengths_of_tile_counts() {
  Arguments a;
  const auto count = [&](int64_t batch, int64_t heads, int64_t seqlen_q, int64_t seqlen_k) {
    CHECK(minf_count_key_tiles(batch, heads, seqlen_q, seqlen_k, &a.index, &a.tiles, nullptr) ==
          MINF_ERROR_INVALID_ARGUMENT);
    return std::string(minf_last_error());
  };
  CHECK(count(-1, 4, 70, 100) == "batch: expected a length in [0, 1073741824], got -1");
  CHECK(count(2, 0, 70, 100) == "num_heads_q: expected a count in [1, 1048576], got 0");
  CHECK(count(2, 4, 101, 100) == "seqlen_q: expected seqlen_q <= seqlen_k = 100, got 101");
  CHECK(count(2, 4, 70, INT64_MAX).starts_with("seqlen_k: expected a length in [0, "));
  CHECK(count(1 << 20, 2, 1, 1) ==
        "batch: expected batch * num_heads_q <= 1048576, got 1048576 * 2");
}

inline void test_empty_calls() {
  const auto no_rows = [](Arguments& a) {
    a.q.shape[1] = a.out.shape[1] = a.lse.shape[2] = a.index.block_index.shape[2] = 0;
    a.q.data = a.out.data = a.lse.data = nullptr;
    a.work.data = nullptr;
    a.work.bytes = 0;
  };
  for (const Call call : {&Arguments::prefill, &Arguments::sparse, &Arguments::merge,
                          &Arguments::estimate_vertical_slash, &Arguments::estimate_blocks}) {
    accept(call, "no rows", no_rows);
    accept(call, "no batch", [](Arguments& a) {
      for (minf_tensor* tensor :
           {&a.q, &a.k, &a.v, &a.out, &a.lse, &a.tiles, &a.vertical_index, &a.slash_index,
            &a.index.vertical_index, &a.index.runs, &a.index.run_count, &a.index.block_index}) {
        tensor->shape[0] = 0;
        tensor->data = nullptr;
        tensor->stride[1] = -5;  // Never used.
      }
    });
  }
  accept(&Arguments::prefill, "no rows and no keys", [&](Arguments& a) {
    no_rows(a);
    a.k.shape[1] = a.v.shape[1] = 0;
  });
  Arguments a;
  no_rows(a);
  CHECK(a.estimate_vertical_slash() == MINF_OK && a.vertical_memory.get({1, 3, 39}) == 39,
        "without rows all scores tie");
}

/// A dimension of size 1 may have any stride.
inline void test_strides_of_single_entries() {
  accept(&Arguments::prefill, "odd strides where they never count", [](Arguments& a) {
    for (minf_tensor* tensor : {&a.q, &a.k, &a.v, &a.out, &a.lse, &a.tiles}) {
      tensor->shape[0] = 1;
      tensor->stride[0] = -77;
    }
    a.q.shape[1] = a.out.shape[1] = a.lse.shape[2] = 1;
    a.q.stride[1] = INT64_MAX;
    a.out.stride[1] = 0;
    a.lse.stride[2] = INT64_MIN;
  });
}

/// Runs all of them except those of workspaces.
inline void test_common_errors() {
  test_legal_arguments();
  test_tensors();
  test_null_pointers();
  test_shapes();
  test_strides_and_memory();
  test_overlap();
  test_views_of_one_buffer();
  test_patterns();
  test_options();
  test_index_tensors();
  test_lengths_of_tile_counts();
  test_empty_calls();
  test_strides_of_single_entries();
}

}  // namespace minference::test
