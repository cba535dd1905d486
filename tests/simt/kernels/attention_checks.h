// Checks of stage 3 of either backend on emulated threads, against float64: every pattern, row
// blocks joined and alone, all dims, odd shapes, NaN and infinity, invalid lists; and that the bits
// are the same under every schedule.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "attention_call.h"
#include "check.h"
#include "extent.h"
#include "simt/simt.h"

namespace minference::test {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Output {
  std::vector<uint16_t> out;  // As in memory, gaps between rows included.
  std::vector<float> lse;
};

/// Stage 3 of a backend, on `resident_blocks` thread blocks at a time.
struct AttentionStage {
  std::size_t (*bytes)(const AttentionArgs& args, int32_t resident_blocks);
  void (*enqueue)(const AttentionArgs& args, Workspace workspace, int32_t resident_blocks);
  std::size_t max_shared_bytes;  // Limit of the GPUs that it is for.
  /// Whether a tile with a NaN or an infinity in V is summed in the same order as other tiles. If
  /// not, rows that do not attend it may round differently.
  bool sums_alike;
};

/// Layout of the rows of out, without memory.
inline Tokens out_place(const AttentionCase& c) {
  std::mt19937_64 unused;
  const test::Tensor like({.name = c.name,
                           .dtype = c.dtype,
                           .head_dim = c.head_dim_v,
                           .batch = c.batch,
                           .layout = c.layout},
                          c.seqlen_q, c.num_heads_q, unused);
  const auto& place = like.tokens;
  return {nullptr, place.batch_stride, place.token_stride, place.head_stride};
}

/// May change the inputs in `call` before it runs.
inline Output compute(const AttentionStage& stage, const AttentionCase& c, AttentionCall& call) {
  for (test::Tensor* tensor : {&call.q, &call.k, &call.v}) tensor->copy_to_device();
  Tokens out = out_place(c);
  const auto out_size = static_cast<std::size_t>(out.batch_stride * c.batch);
  const DeviceArray<uint16_t> out_memory(std::vector<uint16_t>(out_size, 0x7fff));
  out.data = out_memory.data();
  // lse is laid out heads before rows, with a gap.
  const int64_t lse_size = int64_t{c.batch} * c.seqlen_q * (c.num_heads_q + 1);
  const DeviceArray<float> lse_memory(std::vector<float>(static_cast<std::size_t>(lse_size), -7));
  AttentionArgs args{.shape = c.shape(),
                     .q = call.q.tokens,
                     .k = {call.k.tokens},
                     .v = {call.v.tokens},
                     .out = out,
                     .lse = {c.wants_lse ? lse_memory.data() : nullptr,
                             int64_t{c.seqlen_q} * (c.num_heads_q + 1), 1, c.num_heads_q + 1},
                     .softmax_scale = call.scale(),
                     .patterns = call.heads.patterns,
                     .index = call.heads.index()};
  const DeviceArray<std::byte> workspace(stage.bytes(args, c.resident_blocks));
  stage.enqueue(args, workspace.span(), c.resident_blocks);
  return {out_memory.host(), lse_memory.host()};
}

/// P is rounded before the product and out after it; each rounding errs by at most eps / 2 of sum p
/// |v|. The rest of the bound (design: 2 eps) covers float32.
inline void check_against_float64(const AttentionCase& c, const AttentionCall& call,
                                  const Output& output) {
  const std::vector<HeadKeys> keys = call.heads.expected();
  std::vector<char> is_row(output.out.size(), 0);
  const Tokens place = out_place(c);
  for (int32_t b = 0; b < c.batch; ++b) {
    for (int32_t h = 0; h < c.num_heads_q; ++h) {
      const HeadKeys& head = keys[static_cast<std::size_t>(int64_t{b} * c.num_heads_q + h)];
      for (int32_t row = 0; row < c.seqlen_q; ++row) {
        const AttentionCall::Row want = call.expected_row(head, b, h, row);
        const auto first = static_cast<std::size_t>(
            b * place.batch_stride + row * place.token_stride + h * place.head_stride);
        double worst = 0;
        for (std::size_t d = 0; d < want.out.size(); ++d) {
          const double got = from_bits(c.dtype, output.out[first + d]);
          const double bound = 2 * epsilon_of(c.dtype) * want.magnitude[d] + 1e-30;
          worst =
              std::isfinite(got) ? std::max(worst, std::abs(got - want.out[d]) / bound) : kInfinity;
          is_row[first + d] = 1;
        }
        CHECK(worst <= 1, c.name, "form", static_cast<int>(head.form), "batch", b, "head", h, "row",
              row, "error over bound", worst);
        if (!c.wants_lse) continue;
        const double lse = output.lse[static_cast<std::size_t>(
            (int64_t{b} * c.seqlen_q + row) * (c.num_heads_q + 1) + h)];
        const double tolerance = 1e-5 * std::max(1.0, std::abs(want.lse));
        CHECK(lse == want.lse || std::abs(lse - want.lse) <= tolerance, c.name, "form",
              static_cast<int>(head.form), "head", h, "row", row, "lse", lse, "want", want.lse);
      }
    }
  }
  for (std::size_t i = 0; i < is_row.size(); ++i) {
    CHECK(is_row[i] != 0 || output.out[i] == 0x7fff, c.name, "written between rows, element", i);
  }
  for (std::size_t i = 0; i < output.lse.size(); ++i) {
    const bool is_gap =
        i % static_cast<std::size_t>(c.num_heads_q + 1) == static_cast<std::size_t>(c.num_heads_q);
    CHECK(!(is_gap || !c.wants_lse) || output.lse[i] == -7, c.name, "lse written, element", i);
  }
}

inline HeadKeys dense() { return {.dense_rows = kAllRows}; }
inline HeadKeys a_shape(int32_t sink, int32_t window) { return {.sink = sink, .window = window}; }
inline HeadKeys tri_shape(int32_t sink, int32_t window, int32_t last) {
  return {.sink = sink, .window = window, .dense_rows = last};
}
inline HeadKeys vertical_slash() { return {.form = Form::kRuns}; }
inline HeadKeys block_sparse() { return {.form = Form::kBlocks}; }

inline std::vector<HeadKeys> all_patterns() {
  return {dense(), a_shape(9, 70), tri_shape(5, 30, 40), vertical_slash(), block_sparse()};
}

inline std::vector<AttentionCase> cases() {
  const std::vector<HeadKeys> all = all_patterns();
  std::vector<AttentionCase> result;
  // Dims, dtypes, and the three ways to distribute rows and keys.
  for (const auto& [dim, dim_v] : {std::pair{64, 64},
                                   {96, 96},
                                   {128, 128},
                                   {192, 192},
                                   {256, 256},
                                   {192, 128},
                                   {8, 8},
                                   {80, 80},
                                   {72, 200},
                                   {128, 64},
                                   {40, 128}}) {
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
      for (const int32_t resident : {1, 0}) {
        result.push_back({.name = "dims",
                          .dtype = dtype,
                          .head_dim = dim,
                          .head_dim_v = dim_v,
                          .seqlen_q = 150,
                          .seqlen_k = resident == 0 ? 520 : 290,
                          .resident_blocks = resident,
                          .patterns = all});
      }
    }
  }
  // Single row blocks: neither joined nor split.
  result.push_back({.name = "single row blocks",
                    .seqlen_q = 200,
                    .seqlen_k = 300,
                    .resident_blocks = 13,
                    .patterns = all});
  for (const auto& [seqlen_q, seqlen_k] : {std::pair{1, 1},
                                           {1, 200},
                                           {1, 2500},
                                           {63, 63},
                                           {64, 64},
                                           {65, 65},
                                           {7, 321},
                                           {64, 256},
                                           {128, 128},
                                           {129, 513},
                                           {300, 300}}) {
    for (const int32_t resident : {1, 13, 0}) {
      result.push_back({.name = "lengths",
                        .seqlen_q = seqlen_q,
                        .seqlen_k = seqlen_k,
                        .resident_blocks = resident,
                        .patterns = all});
    }
  }
  // The kernels of large head_dims: one row block and several, joined, single and split; short and
  // long lists.
  for (const auto& [dim, dim_v] : {std::pair{192, 128}, {192, 192}, {256, 256}}) {
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
      for (const int32_t resident : {1, 13, 0}) {
        for (const auto& [seqlen_q, seqlen_k] : {std::pair{65, 65}, {257, 513}}) {
          result.push_back({.name = "wide",
                            .dtype = dtype,
                            .head_dim = dim,
                            .head_dim_v = dim_v,
                            .seqlen_q = seqlen_q,
                            .seqlen_k = seqlen_k,
                            .resident_blocks = resident,
                            .lists = {.columns = 150, .runs = 2, .blocks = 2},
                            .patterns = all});
        }
      }
    }
  }
  // Many more splits than a warp has lanes.
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    result.push_back({.name = "many parts",
                      .dtype = dtype,
                      .num_heads_q = 1,
                      .seqlen_q = 1,
                      .seqlen_k = 20000,
                      .resident_blocks = 400,
                      .patterns = {dense()}});
  }
  // Random patterns and sizes; lists from empty to all keys.
  for (const RandomListSizes& lists :
       {RandomListSizes{0, 0, 0}, {1, 1, 1}, {300, 40, 5}, {150, 2, 2}}) {
    for (const int32_t resident : {1, 40, 0}) {
      result.push_back({.name = "any patterns",
                        .batch = 2,
                        .num_heads_q = 6,
                        .num_heads_kv = 3,
                        .seqlen_q = 250,
                        .seqlen_k = 300,
                        .resident_blocks = resident,
                        .lists = lists});
    }
  }
  for (const Layout layout : {Layout::kHeads, Layout::kPadded}) {
    result.push_back({.name = "layout",
                      .head_dim = 80,
                      .head_dim_v = 40,
                      .batch = 2,
                      .num_heads_q = 10,
                      .num_heads_kv = 5,
                      .seqlen_q = 70,
                      .seqlen_k = 90,
                      .layout = layout,
                      .resident_blocks = 1});
  }
  result.push_back({.name = "windows",
                    .seqlen_q = 400,
                    .seqlen_k = 420,
                    .patterns = {a_shape(0, 1), a_shape(100, 0), a_shape(0, 64), a_shape(1, 150),
                                 tri_shape(64, 65, 100)}});
  result.push_back({
      .name = "nothing attended",
      .patterns = {a_shape(0, 0), a_shape(3, 0), tri_shape(0, 0, 5), vertical_slash(),
                   block_sparse()},
  });
  result.back().lists = {.columns = 0, .runs = 0, .blocks = 0};
  result.push_back(result.back());
  result.back().resident_blocks = 0;
  result.push_back({.name = "negative scale", .scale = -0.3, .patterns = all});
  result.push_back({.name = "zero scale",
                    .head_dim = 128,
                    .head_dim_v = 128,
                    .zero_scale = true,
                    .wants_lse = false,
                    .patterns = all});
  result.push_back({.name = "large scale", .dtype = DType::kFloat16, .scale = 40, .patterns = all});
  return result;
}

inline void set_schedule(const AttentionStage& stage, uint64_t seed) {
  simt::options() = {};
  simt::options().max_shared_bytes = stage.max_shared_bytes;
  if (seed == 0) return;
  simt::options().seed = seed;
  simt::options().schedule = simt::Schedule::kRandom;
  simt::options().async = seed % 2 == 0 ? simt::AsyncCopies::kRandom : simt::AsyncCopies::kEager;
}

inline bool same_bits(const Output& a, const Output& b) {
  return a.out == b.out &&
         std::memcmp(a.lse.data(), b.lse.data(), a.lse.size() * sizeof(float)) == 0;
}

inline void test_schedules(const AttentionStage& stage) {
  for (const int32_t dim : {64, 128, 256}) {
    for (const int32_t resident : {1, 9, 0}) {
      const AttentionCase c{.name = "schedules",
                            .head_dim = dim,
                            .head_dim_v = dim,
                            .seqlen_q = 140,
                            .seqlen_k = 260,
                            .resident_blocks = resident,
                            .patterns = all_patterns()};
      AttentionCall call(c);
      const Output first = compute(stage, c, call);
      for (uint64_t seed = 1; seed <= 3; ++seed) {
        set_schedule(stage, seed);
        AttentionCall again(c);
        CHECK(same_bits(compute(stage, c, again), first), "dim", dim, "resident", resident, "seed",
              seed);
      }
      set_schedule(stage, 0);
    }
  }
}

/// Five heads of every pattern on each of two KV heads.
inline AttentionCase non_finite_case(DType dtype, int32_t head_dim, int32_t head_dim_v,
                                     int32_t resident_blocks) {
  std::vector<HeadKeys> twice = all_patterns();
  const std::vector<HeadKeys> all = all_patterns();
  twice.insert(twice.end(), all.begin(), all.end());
  return {.name = "non-finite",
          .dtype = dtype,
          .head_dim = head_dim,
          .head_dim_v = head_dim_v,
          .num_heads_q = 10,
          .num_heads_kv = 2,
          .seqlen_q = 180,
          .seqlen_k = 260,
          .resident_blocks = resident_blocks,
          .patterns = twice};
}

/// A key of the second KV head holds `bad`, in K or in V: it must reach the rows that attend it,
/// and no others.
inline void check_non_finite(const AttentionStage& stage, const AttentionCase& c, int32_t key,
                             bool in_v, float bad) {
  AttentionCall clean(c), spoilt(c);
  (in_v ? spoilt.v : spoilt.k).set(0, 1, key, 5, bad);
  const Output want = compute(stage, c, clean), got = compute(stage, c, spoilt);
  const std::vector<HeadKeys> keys = spoilt.heads.expected();
  for (int32_t h = 0; h < c.num_heads_q; ++h) {
    for (int32_t row = 0; row < c.seqlen_q; ++row) {
      const bool reached =
          h >= 5 && attends(keys[static_cast<std::size_t>(h)], c.shape().lengths, row, key);
      const auto first = static_cast<std::size_t>(row * c.num_heads_q + h) *
                         static_cast<std::size_t>(c.head_dim_v);
      bool same = true;
      for (std::size_t d = first; d < first + static_cast<std::size_t>(c.head_dim_v); ++d) {
        const double a = from_bits(c.dtype, got.out[d]), b = from_bits(c.dtype, want.out[d]);
        same = same &&
               (got.out[d] == want.out[d] ||
                (!stage.sums_alike && std::abs(a - b) <= epsilon_of(c.dtype) * std::abs(b) + 1e-6));
      }
      CHECK(same || reached, "dims", c.head_dim, c.head_dim_v, "key", key, "in v", in_v, "head", h,
            "row", row);
      if (!reached || !in_v) continue;
      const double value = from_bits(c.dtype, got.out[first + 5]);
      CHECK(std::isnan(bad) ? std::isnan(value) : value == bad, "dims", c.head_dim, c.head_dim_v,
            "key", key, "head", h, "row", row, "got", value, "of", bad);
    }
  }
}

/// All dims, because every kernel has its own code for values that are not finite. The key is in a
/// run, a column or a block; row blocks are joined, single, or have their keys split.
inline void test_non_finite(const AttentionStage& stage, Extent extent) {
  struct Dims {
    int32_t head_dim, head_dim_v;
    std::vector<int32_t> keys;
  };
  const std::vector<int32_t> most = {0, 30, 64, 131, 198, 259}, some = {30, 64, 131};
  const float bad_values[] = {NAN, INFINITY, -INFINITY};
  std::size_t count = 0;
  for (const Dims& dims : {Dims{64, 64, most},
                           {96, 96, some},
                           {128, 128, most},
                           {192, 192, some},
                           {192, 128, some},
                           {256, 256, some}}) {
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
      for (const int32_t key : dims.keys) {
        const int32_t resident = key == 64 ? 0 : key == 30 ? 50 : 1;
        const AttentionCase c = non_finite_case(dtype, dims.head_dim, dims.head_dim_v, resident);
        for (const bool in_v : {false, true}) {
          if (!is_checked(extent, count++)) continue;
          check_non_finite(stage, c, key, in_v, bad_values[(key + (in_v ? 1 : 0)) % 3]);
        }
      }
    }
  }
}

/// Whatever lists hold, nothing is read or written out of bounds, and every row is written.
inline void test_spoilt_lists(const AttentionStage& stage) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    const AttentionCase c{.name = "spoilt lists",
                          .num_heads_q = 6,
                          .num_heads_kv = 2,
                          .seqlen_q = 300,
                          .seqlen_k = 333,
                          .resident_blocks = seed % 3 == 0   ? 0
                                             : seed % 3 == 1 ? 1
                                                             : 40,
                          .lists = {.columns = 100, .runs = 6, .blocks = 4},
                          .patterns = {vertical_slash(), block_sparse(), vertical_slash(),
                                       block_sparse(), vertical_slash(), block_sparse()}};
    AttentionCall call(c, seed, /*spoilt=*/true);
    const Output output = compute(stage, c, call);
    for (const uint16_t bits : output.out) {
      CHECK(std::isfinite(from_bits(c.dtype, bits)), "seed", seed);
    }
  }
}

inline void test_attention(const AttentionStage& stage, Extent extent) {
  set_schedule(stage, 0);
  std::size_t i = 0;
  for (const AttentionCase& c : cases()) {
    const uint64_t seed = i + 2;
    if (!is_checked(extent, i++)) continue;
    AttentionCall call(c, seed);
    const Output output = compute(stage, c, call);
    check_against_float64(c, call, output);
  }
  if (extent == Extent::kBrief) {
    check_non_finite(stage, non_finite_case(DType::kBFloat16, 64, 64, 1), 131, /*in_v=*/true, NAN);
  } else {
    test_schedules(stage);
    test_non_finite(stage, extent);
    test_spoilt_lists(stage);
  }
  CHECK(simt::num_allocations() == 0, simt::num_allocations());
}

}  // namespace minference::test
