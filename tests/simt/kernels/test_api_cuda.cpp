// The C surface on tensors in emulated device memory: every stage that the GPU serves gives, bit
// for bit, what the CPU gives on the same inputs. (Inputs are random, so scores lie farther apart
// than either rounds.)
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "api_call.h"
#include "check.h"
#include "device_place.h"
#include "minference/minference.h"
#include "patterns.h"
#include "simt/simt.h"
#include "test_tensor.h"

namespace {

using namespace minference::test;

struct Problem {
  const char* name;
  int32_t dtype = MINF_BFLOAT16;
  int64_t batch = 1, seqlen_q = 130, seqlen_k = 130, heads_q = 4, heads_kv = 2, head_dim = 64;
  int64_t vertical_size = 40, slash_size = 110, top_k = 3;
  int32_t last_q = 64, sink = 30, local = 100;
  double share = 1;  // Value of vertical_p, slash_p and top_p.
  RowLayout layout = RowLayout::kContiguous;
};

/// q or k of a problem.
Rows random_rows(const Problem& problem, int64_t seqlen, int64_t heads, std::mt19937& random) {
  Rows rows(problem.dtype, problem.layout, problem.batch, seqlen, heads, problem.head_dim);
  rows.fill_random(random);
  return rows;
}

/// All outputs of the stages.
struct Results {
  TestTensor vertical_index, slash_index, block_index, runs, run_count, tiles, dense_tiles;

  std::vector<std::pair<const char*, std::vector<std::byte>>> all() const {
    return {{"vertical_index", vertical_index.copy()}, {"slash_index", slash_index.copy()},
            {"block_index", block_index.copy()},       {"runs", runs.copy()},
            {"run_count", run_count.copy()},           {"tiles", tiles.copy()},
            {"dense_tiles", dense_tiles.copy()}};
  }
};

void estimate(const Problem& problem, Results& results) {
  std::mt19937 random(7);
  const Rows q = random_rows(problem, problem.seqlen_q, problem.heads_q, random);
  const Rows k = random_rows(problem, problem.seqlen_k, problem.heads_kv, random);
  minf_vertical_slash_options options = minf_vertical_slash_options_default();
  options.last_q = problem.last_q;
  options.sink = problem.sink;
  options.local = problem.local;
  options.vertical_p = options.slash_p = problem.share;
  const minf_tensor vertical_index = results.vertical_index.view();
  const minf_tensor slash_index = results.slash_index.view();
  std::size_t bytes = 0;
  check_ok(
      minf_estimate_vertical_slash_workspace_bytes(&q.view(), &k.view(), &options, nullptr, &bytes),
      problem.name);
  const Workspace workspace(bytes);
  check_ok(minf_estimate_vertical_slash(&q.view(), &k.view(), &options, &vertical_index,
                                        &slash_index, workspace.data(), workspace.bytes(), nullptr),
           problem.name);

  minf_block_sparse_options block_options = minf_block_sparse_options_default();
  block_options.top_p = problem.share;
  const minf_tensor block_index = results.block_index.view();
  check_ok(minf_estimate_block_sparse_workspace_bytes(&q.view(), &k.view(), &block_options, nullptr,
                                                      &bytes),
           problem.name);
  const Workspace block_workspace(bytes);
  check_ok(minf_estimate_block_sparse(&q.view(), &k.view(), &block_options, &block_index,
                                      block_workspace.data(), block_workspace.bytes(), nullptr),
           problem.name);
}

/// Counts tiles for one pattern on all heads, or for heads that cycle through one of each kind.
void count(const Problem& problem, const std::vector<minf_pattern>& patterns,
           const Results& results, const TestTensor& tiles) {
  const minf_sparse_index index{.struct_size = sizeof(minf_sparse_index),
                                .patterns = patterns.data(),
                                .num_patterns = static_cast<int64_t>(patterns.size()),
                                .vertical_index = results.vertical_index.view(),
                                .runs = results.runs.view(),
                                .run_count = results.run_count.view(),
                                .block_index = results.block_index.view()};
  const minf_tensor view = tiles.view();
  check_ok(minf_count_key_tiles(problem.batch, problem.heads_q, problem.seqlen_q, problem.seqlen_k,
                                &index, &view, nullptr),
           problem.name);
}

/// All stages, on tensors in `place`.
Results run(const Problem& problem) {
  const auto size = [&](int64_t wanted, int64_t forced) {
    return std::min(problem.seqlen_k, std::max(wanted, forced));
  };
  const int64_t batch = problem.batch, heads = problem.heads_q;
  const int64_t num_distances = size(problem.slash_size, problem.local);
  Results results{
      .vertical_index =
          TestTensor(MINF_INT32, {batch, heads, size(problem.vertical_size, problem.sink)}),
      .slash_index = TestTensor(MINF_INT32, {batch, heads, num_distances}),
      .block_index =
          TestTensor(MINF_INT32, {batch, heads, (problem.seqlen_q + 63) / 64, problem.top_k}),
      .runs = TestTensor(MINF_INT32,
                         {batch, heads, minf_max_runs(num_distances, problem.seqlen_k) + 2, 2}),
      .run_count = TestTensor(MINF_INT32, {batch, heads}),
      .tiles = TestTensor(MINF_INT64, {batch, heads}),
      .dense_tiles = TestTensor(MINF_INT64, {batch, heads})};
  estimate(problem, results);

  const minf_tensor slash_index = results.slash_index.view(), runs = results.runs.view();
  const minf_tensor run_count = results.run_count.view();
  check_ok(minf_plan_vertical_slash(&slash_index, problem.seqlen_k, &runs, &run_count, nullptr),
           problem.name);

  const minf_pattern kinds[] = {minference::test::vertical_slash(0, 0),
                                minference::test::block_sparse(1), minference::test::a_shape(5, 70),
                                minference::test::tri_shape(5, 70, 20)};
  std::vector<minf_pattern> patterns;
  for (int64_t head = 0; head < heads; ++head) patterns.push_back(kinds[head % 4]);
  count(problem, patterns, results, results.tiles);
  count(problem, {minference::test::dense()}, results, results.dense_tiles);
  return results;
}

void compare(const Problem& problem) {
  place = Place{};
  const auto expected = run(problem).all();
  place = kDevicePlace;
  const auto got = run(problem).all();
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CHECK(got[i].second == expected[i].second, problem.name, expected[i].first);
  }
}

const Problem kProblems[] = {
    {.name = "one tile", .seqlen_q = 64, .seqlen_k = 64},
    {.name = "ragged"},
    {.name = "float16", .dtype = MINF_FLOAT16, .seqlen_q = 129, .seqlen_k = 129},
    {.name = "one row", .seqlen_q = 1, .seqlen_k = 200},
    {.name = "one key", .seqlen_q = 1, .seqlen_k = 1, .heads_q = 2},
    {.name = "a chunk", .seqlen_q = 70, .seqlen_k = 333, .top_k = 4},
    {.name = "batch", .batch = 3, .seqlen_q = 65, .seqlen_k = 127},
    {.name = "no sharing of keys", .heads_q = 3, .heads_kv = 3},
    {.name = "one KV head", .heads_q = 7, .heads_kv = 1},
    {.name = "head_dim 8", .head_dim = 8},
    {.name = "head_dim 80", .head_dim = 80},
    {.name = "head_dim 128", .head_dim = 128},
    {.name = "head_dim 256", .seqlen_q = 66, .seqlen_k = 100, .head_dim = 256},
    {.name = "heads first in memory", .batch = 2, .layout = RowLayout::kHeadsFirst},
    {.name = "padded rows", .batch = 2, .layout = RowLayout::kPaddedRows},
    {.name = "few last rows", .last_q = 5, .sink = 0, .local = 0},
    {.name = "nothing but the forced", .vertical_size = 0, .slash_size = 0, .top_k = 1},
    {.name = "shares of the mass",
     .seqlen_k = 300,
     .top_k = 5,
     .sink = 2,
     .local = 9,
     .share = 0.4},
    {.name = "no rows", .batch = 2, .seqlen_q = 0},
    {.name = "no rows, a share", .seqlen_q = 0, .share = 0.5},
    {.name = "no rows and no keys", .seqlen_q = 0, .seqlen_k = 0},
    {.name = "no batch", .batch = 0},
};

}  // namespace

int main() {
  simt::options().max_shared_bytes = std::size_t{227} << 10;  // The machine has a Hopper GPU.
  for (const Problem& problem : kProblems) compare(problem);
  CHECK(simt::num_allocations() == 0, simt::num_allocations());
  return finish();
}
