// Prefill through the C surface against a naive float64 reference: every pattern, dtype and
// instruction set; the stages one by one; any number of threads, any thread pool, any alignment of
// the workspace.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "minference/minference.h"
#include "patterns.h"
#include "test_tensor.h"

namespace {

using minference::test::epsilon;
using minference::test::TestTensor;

constexpr int64_t kBlock = 64;

int64_t blocks_of(int64_t length) { return (length + kBlock - 1) / kBlock; }

struct Sizes {
  int64_t batch, seqlen_q, seqlen_k, num_heads_q, num_heads_kv, head_dim, head_dim_v;
};

/// One call: its inputs, its patterns, and the index that the stages compute for them.
struct Problem {
  int32_t dtype;
  Sizes sizes;
  std::vector<minf_pattern> patterns;  // One per query head.
  double scale;
  TestTensor q, k, v;
  TestTensor vertical_index, slash_index, runs, run_count, block_index;
  minf_vertical_slash_options estimate = minf_vertical_slash_options_default();

  Problem(int32_t dtype_, const Sizes& sizes_, std::vector<minf_pattern> patterns_, double scale_)
      : dtype(dtype_), sizes(sizes_), patterns(std::move(patterns_)), scale(scale_) {
    const auto& [batch, seqlen_q, seqlen_k, num_heads_q, num_heads_kv, head_dim, head_dim_v] =
        sizes;
    q = TestTensor(dtype, {batch, seqlen_q, num_heads_q, head_dim});
    k = TestTensor(dtype, {batch, seqlen_k, num_heads_kv, head_dim});
    v = TestTensor(dtype, {batch, seqlen_k, num_heads_kv, head_dim_v});
    std::mt19937 random(static_cast<uint32_t>(seqlen_q * 1000 + seqlen_k));
    for (TestTensor* input : {&q, &k, &v}) input->fill_random(random);
    // Small, so that even a short sequence leaves some keys out.
    estimate.sink = 2;
    estimate.local = 5;
    estimate.last_q = 16;
    estimate.softmax_scale = &scale;
    for (minf_pattern& pattern : patterns) {
      if (pattern.kind == MINF_VERTICAL_SLASH) set_estimate(pattern.as.vertical_slash);
    }
    if (patterns.size() == 1) patterns.resize(static_cast<std::size_t>(num_heads_q), patterns[0]);
  }
  Problem(const Problem&) = delete;

  /// Copies the options of `estimate` into a pattern.
  void set_estimate(minf_vertical_slash& fields) const {
    fields.last_q = estimate.last_q;
    fields.sink = estimate.sink;
    fields.local = estimate.local;
    fields.vertical_p = estimate.vertical_p;
    fields.slash_p = estimate.slash_p;
  }

  int64_t index_size(int32_t wanted, int32_t forced) const {
    return std::min<int64_t>(sizes.seqlen_k, std::max(wanted, forced));
  }
};

/// All outputs of a call.
struct Result {
  TestTensor out, lse, tiles;

  explicit Result(const Problem& problem) {
    const Sizes& s = problem.sizes;
    out = TestTensor(problem.dtype, {s.batch, s.seqlen_q, s.num_heads_q, s.head_dim_v});
    lse = TestTensor(MINF_FLOAT32, {s.batch, s.num_heads_q, s.seqlen_q});
    tiles = TestTensor(MINF_INT64, {s.batch, s.num_heads_q});
  }
  bool operator==(Result& other) {
    return out.copy() == other.out.copy() && lse.copy() == other.lse.copy() &&
           tiles.copy() == other.tiles.copy();
  }
};

void expect_ok(minf_status status, const char* call) {
  CHECK(status == MINF_OK, call, minf_last_error());
}

/// A block of work memory at a chosen misalignment, between guards that must not change.
class GuardedWorkspace {
 public:
  GuardedWorkspace(std::size_t bytes, std::size_t misalignment)
      : storage_(bytes + 4 * kGuard, kCanary), bytes_(bytes) {
    const auto base = reinterpret_cast<std::uintptr_t>(storage_.data());
    offset_ = kGuard + (kGuard - base % kGuard) % kGuard + misalignment;
  }
  void* data() { return storage_.data() + offset_; }
  std::size_t bytes() const { return bytes_; }
  bool intact() const {
    const auto is_canary = [](std::byte b) { return b == kCanary; };
    const auto begin = storage_.begin() + static_cast<std::ptrdiff_t>(offset_);
    return std::all_of(storage_.begin(), begin, is_canary) &&
           std::all_of(begin + static_cast<std::ptrdiff_t>(bytes_), storage_.end(), is_canary);
  }

 private:
  static constexpr std::size_t kGuard = 64;
  static constexpr std::byte kCanary{0xa5};
  std::vector<std::byte> storage_;
  std::size_t bytes_;
  std::size_t offset_ = 0;
};

minf_exec exec_of(int32_t num_threads) {
  minf_exec exec{};
  exec.struct_size = sizeof exec;
  exec.num_threads = num_threads;
  return exec;
}

/// Runs all stages in one call, in exactly the work memory that it asks for.
void prefill(Problem& problem, Result& result, const minf_exec& exec, std::size_t misalignment) {
  const minf_tensor q = problem.q.view(), k = problem.k.view(), v = problem.v.view();
  const minf_tensor out = result.out.view(), lse = result.lse.view(), tiles = result.tiles.view();
  const auto num_patterns = static_cast<int64_t>(problem.patterns.size());
  const minf_attention_options options{sizeof options, &problem.scale};
  std::size_t bytes = 0;
  expect_ok(minf_prefill_attention_workspace_bytes(&q, &k, problem.patterns.data(), num_patterns,
                                                   &exec, &bytes),
            "prefill workspace");
  const auto call = [&](GuardedWorkspace& workspace) {
    return minf_prefill_attention(&q, &k, &v, problem.patterns.data(), num_patterns, &options, &out,
                                  &lse, &tiles, workspace.data(), workspace.bytes(), &exec);
  };
  if (bytes > 0) {
    GuardedWorkspace one_less(bytes - 1, misalignment);
    CHECK(call(one_less) == MINF_ERROR_WORKSPACE_TOO_SMALL, "one byte less than asked for");
  }
  GuardedWorkspace workspace(bytes, misalignment);
  expect_ok(call(workspace), "prefill");
  CHECK(workspace.intact(), "a write outside the workspace");
}

void estimate_vertical_slash(Problem& problem, const minf_pattern& pattern, const minf_exec& exec) {
  const int64_t batch = problem.sizes.batch, num_heads = problem.sizes.num_heads_q;
  const int64_t seqlen_k = problem.sizes.seqlen_k;
  const int64_t slash_size =
      problem.index_size(pattern.as.vertical_slash.slash_size, problem.estimate.local);
  problem.vertical_index = TestTensor(
      MINF_INT32,
      {batch, num_heads,
       problem.index_size(pattern.as.vertical_slash.vertical_size, problem.estimate.sink)});
  problem.slash_index = TestTensor(MINF_INT32, {batch, num_heads, slash_size});
  problem.runs = TestTensor(MINF_INT32, {batch, num_heads, minf_max_runs(slash_size, seqlen_k), 2});
  problem.run_count = TestTensor(MINF_INT32, {batch, num_heads});
  const minf_tensor q = problem.q.view(), k = problem.k.view();
  const minf_tensor vertical = problem.vertical_index.view(), slash = problem.slash_index.view();
  const minf_tensor runs = problem.runs.view(), run_count = problem.run_count.view();
  std::size_t bytes = 0;
  expect_ok(minf_estimate_vertical_slash_workspace_bytes(&q, &k, &problem.estimate, &exec, &bytes),
            "estimate workspace");
  GuardedWorkspace workspace(bytes, /*misalignment=*/1);
  expect_ok(minf_estimate_vertical_slash(&q, &k, &problem.estimate, &vertical, &slash,
                                         workspace.data(), workspace.bytes(), &exec),
            "estimate_vertical_slash");
  CHECK(workspace.intact(), "a write outside the workspace");
  expect_ok(minf_plan_vertical_slash(&slash, seqlen_k, &runs, &run_count, &exec), "plan");
}

void estimate_block_sparse(Problem& problem, const minf_pattern& pattern, const minf_exec& exec) {
  const Sizes& s = problem.sizes;
  const int64_t top_k = std::min<int64_t>(pattern.as.block_sparse.top_k, blocks_of(s.seqlen_k));
  problem.block_index =
      TestTensor(MINF_INT32, {s.batch, s.num_heads_q, blocks_of(s.seqlen_q), top_k});
  const minf_tensor q = problem.q.view(), k = problem.k.view();
  const minf_tensor block_index = problem.block_index.view();
  std::size_t bytes = 0;
  expect_ok(minf_estimate_block_sparse_workspace_bytes(&q, &k, nullptr, &exec, &bytes),
            "estimate workspace");
  GuardedWorkspace workspace(bytes, /*misalignment=*/1);
  expect_ok(minf_estimate_block_sparse(&q, &k, nullptr, &block_index, workspace.data(),
                                       workspace.bytes(), &exec),
            "estimate_block_sparse");
  CHECK(workspace.intact(), "a write outside the workspace");
}

minf_sparse_index index_of(Problem& problem) {
  minf_sparse_index index{};
  index.struct_size = sizeof index;
  index.patterns = problem.patterns.data();
  index.num_patterns = static_cast<int64_t>(problem.patterns.size());
  index.vertical_index = problem.vertical_index.view();
  index.runs = problem.runs.view();
  index.run_count = problem.run_count.view();
  index.block_index = problem.block_index.view();
  return index;
}

/// Runs the stages one by one, and leaves their index in the problem.
void stages(Problem& problem, Result& result, const minf_exec& exec) {
  for (const minf_pattern& pattern : problem.patterns) {
    if (pattern.kind == MINF_VERTICAL_SLASH) estimate_vertical_slash(problem, pattern, exec);
    if (pattern.kind == MINF_BLOCK_SPARSE) estimate_block_sparse(problem, pattern, exec);
  }
  const minf_sparse_index index = index_of(problem);
  const minf_tensor q = problem.q.view(), k = problem.k.view(), v = problem.v.view();
  const minf_tensor out = result.out.view(), lse = result.lse.view(), tiles = result.tiles.view();
  const minf_attention_options options{sizeof options, &problem.scale};
  std::size_t bytes = 0;
  expect_ok(minf_sparse_attention_workspace_bytes(&q, &k, &index, &exec, &bytes),
            "sparse workspace");
  GuardedWorkspace workspace(bytes, /*misalignment=*/33);
  expect_ok(minf_sparse_attention(&q, &k, &v, &index, &options, &out, &lse, workspace.data(),
                                  workspace.bytes(), &exec),
            "sparse_attention");
  CHECK(workspace.intact(), "a write outside the workspace");
  const Sizes& s = problem.sizes;
  expect_ok(
      minf_count_key_tiles(s.batch, s.num_heads_q, s.seqlen_q, s.seqlen_k, &index, &tiles, &exec),
      "count_key_tiles");
}

/// Runs minf_build_index, then stage 3 and the count on its index.
void build_index(Problem& problem, Result& result, const minf_exec& exec) {
  const minf_tensor q = problem.q.view(), k = problem.k.view(), v = problem.v.view();
  const minf_tensor out = result.out.view(), lse = result.lse.view(), tiles = result.tiles.view();
  const auto num_patterns = static_cast<int64_t>(problem.patterns.size());
  const minf_attention_options options{sizeof options, &problem.scale};
  std::size_t index_bytes = 0, workspace_bytes = 0, bytes = 0;
  expect_ok(minf_build_index_bytes(&q, &k, problem.patterns.data(), num_patterns, &exec,
                                   &index_bytes, &workspace_bytes),
            "build_index_bytes");
  GuardedWorkspace memory(index_bytes, /*misalignment=*/5);
  minf_sparse_index index{};
  index.struct_size = sizeof index;
  {
    GuardedWorkspace workspace(workspace_bytes, /*misalignment=*/17);
    const auto build = [&](std::size_t index_size, std::size_t workspace_size) {
      return minf_build_index(&q, &k, problem.patterns.data(), num_patterns, &options, &index,
                              memory.data(), index_size, workspace.data(), workspace_size, &exec);
    };
    if (index_bytes > 0) {
      CHECK(build(index_bytes - 1, workspace_bytes) == MINF_ERROR_WORKSPACE_TOO_SMALL);
    }
    if (workspace_bytes > 0) {
      CHECK(build(index_bytes, workspace_bytes - 1) == MINF_ERROR_WORKSPACE_TOO_SMALL);
    }
    expect_ok(build(index_bytes, workspace_bytes), "build_index");
    CHECK(workspace.intact() && memory.intact(), "a write outside the memory");
  }
  expect_ok(minf_sparse_attention_workspace_bytes(&q, &k, &index, &exec, &bytes),
            "sparse workspace");
  GuardedWorkspace workspace(bytes, /*misalignment=*/33);
  expect_ok(minf_sparse_attention(&q, &k, &v, &index, &options, &out, &lse, workspace.data(),
                                  workspace.bytes(), &exec),
            "sparse_attention of a built index");
  const Sizes& s = problem.sizes;
  expect_ok(
      minf_count_key_tiles(s.batch, s.num_heads_q, s.seqlen_q, s.seqlen_k, &index, &tiles, &exec),
      "count_key_tiles of a built index");
}

/// The keys that query row `row` attends: patterns by definition, lists as the stages gave them.
std::vector<int64_t> attended_keys(const Problem& problem, int64_t b, int64_t h, int64_t row) {
  const Sizes& s = problem.sizes;
  const minf_pattern& pattern = problem.patterns[static_cast<std::size_t>(h)];
  const int64_t position = row + s.seqlen_k - s.seqlen_q;
  const int64_t end = row / kBlock * kBlock + kBlock + s.seqlen_k - s.seqlen_q;
  std::vector<char> chosen(static_cast<std::size_t>(s.seqlen_k), 0);
  const auto choose = [&](int64_t from, int64_t to) {
    for (int64_t key = std::max<int64_t>(from, 0); key < std::min(to, s.seqlen_k); ++key) {
      chosen[static_cast<std::size_t>(key)] = 1;
    }
  };
  const auto entry = [](const TestTensor& list, std::initializer_list<int64_t> at) {
    return static_cast<int64_t>(list.get(at));
  };
  switch (pattern.kind) {
    case MINF_TRI_SHAPE:
      if (row >= s.seqlen_q - pattern.as.tri_shape.last) choose(0, s.seqlen_k);
      choose(0, pattern.as.tri_shape.sink);
      choose(position - pattern.as.tri_shape.window + 1, s.seqlen_k);
      break;
    case MINF_A_SHAPE:
      choose(0, pattern.as.a_shape.sink);
      choose(position - pattern.as.a_shape.window + 1, s.seqlen_k);
      break;
    case MINF_VERTICAL_SLASH:
      for (int64_t i = 0; i < problem.vertical_index.size(2); ++i) {
        const int64_t column = entry(problem.vertical_index, {b, h, i});
        choose(column, column + 1);
      }
      for (int64_t i = 0; i < entry(problem.run_count, {b, h}); ++i) {
        choose(end - entry(problem.runs, {b, h, i, 1}), end - entry(problem.runs, {b, h, i, 0}));
      }
      break;
    case MINF_BLOCK_SPARSE:
      for (int64_t i = 0; i < problem.block_index.size(3); ++i) {
        const int64_t block = entry(problem.block_index, {b, h, row / kBlock, i});
        if (block >= 0) choose(block * kBlock, (block + 1) * kBlock);
      }
      break;
    default:
      choose(0, s.seqlen_k);
  }
  std::vector<int64_t> keys;
  for (int64_t key = 0; key <= position; ++key) {
    if (chosen[static_cast<std::size_t>(key)] != 0) keys.push_back(key);
  }
  return keys;
}

/// One row of exact attention.
struct ReferenceRow {
  std::vector<double> out, magnitude;  // sum_j p_j v_j and sum_j p_j |v_j|.
  double lse = -std::numeric_limits<double>::infinity();
  double max_logit = 0;  // Largest |scale * q.k|.
};

ReferenceRow reference_row(const Problem& problem, int64_t b, int64_t h, int64_t row) {
  const Sizes& s = problem.sizes;
  const int64_t kv_head = h / (s.num_heads_q / s.num_heads_kv);
  const std::vector<int64_t> keys = attended_keys(problem, b, h, row);
  ReferenceRow result{std::vector<double>(static_cast<std::size_t>(s.head_dim_v)),
                      std::vector<double>(static_cast<std::size_t>(s.head_dim_v))};
  std::vector<double> logits;
  for (const int64_t key : keys) {
    double dot = 0;
    for (int64_t d = 0; d < s.head_dim; ++d) {
      dot += problem.q.get({b, row, h, d}) * problem.k.get({b, key, kv_head, d});
    }
    logits.push_back(problem.scale * dot);
    result.max_logit = std::max(result.max_logit, std::abs(logits.back()));
  }
  if (keys.empty()) return result;
  const double max = *std::ranges::max_element(logits);
  double sum = 0;
  for (const double logit : logits) sum += std::exp(logit - max);
  result.lse = max + std::log(sum);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const double p = std::exp(logits[i] - result.lse);
    for (int64_t d = 0; d < s.head_dim_v; ++d) {
      const double value = problem.v.get({b, keys[i], kv_head, d});
      result.out[static_cast<std::size_t>(d)] += p * value;
      result.magnitude[static_cast<std::size_t>(d)] += p * std::abs(value);
    }
  }
  return result;
}

/// P and out are each rounded once to the dtype. exp and the sums are float32, and so is a logit,
/// whose rounding error grows with it. (q.k itself is exact: see TestTensor::fill_random.)
double out_bound(int32_t dtype, const ReferenceRow& row, std::size_t d) {
  const double float32_error = 4 * epsilon(MINF_FLOAT32) * (1 + row.max_logit);
  return (2 * epsilon(dtype) + float32_error) * row.magnitude[d];
}

bool near(double got, double want, double bound) {
  if (std::isnan(got) || std::isinf(want)) return got == want;
  return std::abs(got - want) <= bound;
}

void check_against_reference(const Problem& problem, const Result& result, const char* isa) {
  const Sizes& s = problem.sizes;
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t h = 0; h < s.num_heads_q; ++h) {
      for (int64_t row = 0; row < s.seqlen_q; ++row) {
        const ReferenceRow want = reference_row(problem, b, h, row);
        const double lse = result.lse.get({b, h, row});
        CHECK(near(lse, want.lse, 1e-5 * (1 + std::abs(want.lse))), isa, "lse", lse, want.lse,
              "kind", problem.patterns[static_cast<std::size_t>(h)].kind, "row", row);
        for (int64_t d = 0; d < s.head_dim_v; ++d) {
          const auto at = static_cast<std::size_t>(d);
          const double out = result.out.get({b, row, h, d});
          CHECK(near(out, want.out[at], out_bound(problem.dtype, want, at)), isa, "dtype",
                problem.dtype, "kind", problem.patterns[static_cast<std::size_t>(h)].kind, "row",
                row, "of", s.seqlen_q, s.seqlen_k, "got", out, "want", want.out[at]);
        }
      }
    }
  }
}

std::vector<minf_pattern> all_patterns() {
  return {minference::test::dense(),
          minference::test::a_shape(3, 20),
          minference::test::tri_shape(1, 10, 7),
          minference::test::vertical_slash(6, 9),
          minference::test::block_sparse(3),
          minference::test::vertical_slash(6, 9)};
}

void check_problem(Problem& problem, const char* isa) {
  const minf_exec exec = exec_of(2);
  Result by_stages(problem), at_once(problem);
  stages(problem, by_stages, exec);
  prefill(problem, at_once, exec, /*misalignment=*/0);
  CHECK(at_once == by_stages, isa, "prefill is its stages, bit by bit");
  Result by_index(problem);
  build_index(problem, by_index, exec);
  CHECK(by_index == at_once, isa, "prefill is build_index and attention, bit by bit");
  check_against_reference(problem, at_once, isa);
}

void test_all_patterns(const char* isa) {
  constexpr Sizes kSizes[] = {{1, 1, 1, 6, 6, 64, 64},       {1, 1, 130, 6, 3, 80, 80},
                              {2, 65, 129, 6, 2, 8, 8},      {1, 100, 260, 6, 3, 64, 64},
                              {1, 100, 260, 6, 3, 192, 128}, {1, 65, 129, 6, 1, 8, 256}};
  for (const int32_t dtype : {MINF_FLOAT32, MINF_BFLOAT16, MINF_FLOAT16}) {
    for (const Sizes& sizes : kSizes) {
      Problem problem(dtype, sizes, all_patterns(),
                      1 / std::sqrt(static_cast<double>(sizes.head_dim)));
      check_problem(problem, isa);
    }
  }
}

/// Neighbouring heads have the same pattern and share K and V; scales of either sign and zero.
void test_shared_patterns(const char* isa) {
  for (const double scale : {0.1, -0.1, 0.0}) {
    for (const minf_pattern& pattern : all_patterns()) {
      Problem problem(MINF_BFLOAT16, {1, 70, 140, 4, 1, 40, 72}, {pattern}, scale);
      check_problem(problem, isa);
    }
  }
  // Lists that end before their memory does.
  Problem by_mass(MINF_FLOAT32, {1, 40, 140, 4, 2, 64, 64},
                  {minference::test::vertical_slash(50, 60)}, 0.1);
  by_mass.estimate.vertical_p = by_mass.estimate.slash_p = 0.3;
  for (minf_pattern& pattern : by_mass.patterns) by_mass.set_estimate(pattern.as.vertical_slash);
  check_problem(by_mass, isa);
  CHECK(by_mass.vertical_index.get({0, 0, 49}) == -1 && by_mass.slash_index.get({0, 0, 59}) == -1);
  // Rows without any key: out = 0, lse = -inf.
  Problem nothing(MINF_FLOAT32, {1, 3, 70, 2, 1, 256, 256}, {minference::test::a_shape(0, 0)}, 0.1);
  check_problem(nothing, isa);
}

// ---- Host thread pools

void reversed(int64_t num_tasks, minf_task task, void* task_context, void* context) {
  ++*static_cast<int64_t*>(context);
  for (int64_t i = num_tasks - 1; i >= 0; --i) task(i, task_context);
}

void thread_per_task(int64_t num_tasks, minf_task task, void* task_context, void* context) {
  ++*static_cast<int64_t*>(context);
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < num_tasks; ++i) threads.emplace_back(task, i, task_context);
  for (std::thread& thread : threads) thread.join();
}

Problem mixed_problem(int32_t dtype) {
  return Problem(dtype, {2, 150, 310, 6, 3, 64, 64}, all_patterns(), 0.125);
}

void test_threads_change_nothing() {
  for (const int32_t dtype : {MINF_FLOAT32, MINF_BFLOAT16}) {
    Problem problem = mixed_problem(dtype);
    Result one(problem);
    prefill(problem, one, exec_of(1), /*misalignment=*/0);
    for (const int32_t num_threads : {0, 2, 3, 7, 100}) {
      Result many(problem);
      prefill(problem, many, exec_of(num_threads), static_cast<std::size_t>(num_threads) % 64);
      CHECK(many == one, num_threads, "threads");
    }
    for (const minf_parallel_for pool : {&reversed, &thread_per_task}) {
      int64_t num_calls = 0;
      minf_exec exec = exec_of(5);
      exec.parallel_for = pool;
      exec.parallel_for_context = &num_calls;
      Result hosted(problem);
      prefill(problem, hosted, exec, /*misalignment=*/63);
      CHECK(hosted == one && num_calls > 0, "a pool of the host");
    }
  }
}

/// K and V as [batch, heads, seqlen, head_dim], out beside q in one buffer, give the same bits.
void test_strides_change_nothing() {
  Problem problem = mixed_problem(MINF_FLOAT16);
  const Sizes& s = problem.sizes;
  Result plain(problem);
  prefill(problem, plain, exec_of(2), /*misalignment=*/0);

  const auto transposed = [&](const TestTensor& tensor, TestTensor& memory) {
    memory = TestTensor(problem.dtype, {s.batch, s.num_heads_kv, s.seqlen_k, s.head_dim});
    for (int64_t b = 0; b < s.batch; ++b) {
      for (int64_t h = 0; h < s.num_heads_kv; ++h) {
        for (int64_t j = 0; j < s.seqlen_k; ++j) {
          for (int64_t d = 0; d < s.head_dim; ++d) {
            memory.set({b, h, j, d}, tensor.get({b, j, h, d}));
          }
        }
      }
    }
    minf_tensor view = memory.view();
    std::swap(view.shape[1], view.shape[2]);
    std::swap(view.stride[1], view.stride[2]);
    return view;
  };
  TestTensor k_memory, v_memory;
  const minf_tensor k = transposed(problem.k, k_memory), v = transposed(problem.v, v_memory);

  TestTensor both(problem.dtype, {s.batch, s.seqlen_q, 2 * s.num_heads_q, s.head_dim});
  minf_tensor q = problem.q.view(), out = problem.q.view();
  q.stride[0] = out.stride[0] = 2 * s.seqlen_q * s.num_heads_q * s.head_dim;
  q.stride[1] = out.stride[1] = 2 * s.num_heads_q * s.head_dim;
  const auto row_bytes = static_cast<std::size_t>(s.num_heads_q * s.head_dim) * 2;
  for (int64_t row = 0; row < s.batch * s.seqlen_q; ++row) {
    std::memcpy(both.bytes().data() + static_cast<std::size_t>(2 * row) * row_bytes,
                problem.q.bytes().data() + static_cast<std::size_t>(row) * row_bytes, row_bytes);
  }
  q.data = both.bytes().data();
  out.data = both.bytes().data() + row_bytes;

  std::vector<std::byte> workspace(std::size_t{64} << 20);
  const minf_attention_options options{sizeof options, &problem.scale};
  expect_ok(
      minf_prefill_attention(&q, &k, &v, problem.patterns.data(), s.num_heads_q, &options, &out,
                             nullptr, nullptr, workspace.data(), workspace.size(), nullptr),
      "strided prefill");
  for (int64_t row = 0; row < s.batch * s.seqlen_q; ++row) {
    const std::byte* const pair =
        both.bytes().data() + static_cast<std::size_t>(2 * row) * row_bytes;
    const auto at = static_cast<std::size_t>(row) * row_bytes;
    CHECK(std::memcmp(pair, problem.q.bytes().data() + at, row_bytes) == 0, "q changed");
    CHECK(std::memcmp(pair + row_bytes, plain.out.bytes().data() + at, row_bytes) == 0, "row", row);
  }
}

/// Attention over even and over odd key blocks, merged in place, is dense attention.
void test_merge() {
  Problem dense(MINF_FLOAT32, {2, 70, 300, 2, 1, 64, 64}, {minference::test::dense()}, 0.125);
  const Sizes& s = dense.sizes;
  Problem part(MINF_FLOAT32, s, {minference::test::block_sparse(1)}, 0.125);
  Result parts[2] = {Result(part), Result(part)};
  for (int64_t parity : {0, 1}) {
    part.block_index = TestTensor(MINF_INT32, {s.batch, s.num_heads_q, blocks_of(s.seqlen_q), 3});
    for (int64_t list = 0; list < s.batch * s.num_heads_q * blocks_of(s.seqlen_q); ++list) {
      for (int64_t i = 0; i < 3; ++i) {
        const int64_t block = 2 * i + parity;
        part.block_index.set({0, 0, 0, 3 * list + i}, static_cast<double>(block < 5 ? block : -1));
      }
    }
    const minf_sparse_index index = index_of(part);
    const minf_tensor q = part.q.view(), k = part.k.view(), v = part.v.view();
    Result& result = parts[parity];
    const minf_tensor out = result.out.view(), lse = result.lse.view();
    std::vector<std::byte> workspace(std::size_t{64} << 20);
    expect_ok(minf_sparse_attention(&q, &k, &v, &index, nullptr, &out, &lse, workspace.data(),
                                    workspace.size(), nullptr),
              "half of the blocks");
  }
  const minf_tensor out_a = parts[0].out.view(), lse_a = parts[0].lse.view();
  const minf_tensor out_b = parts[1].out.view(), lse_b = parts[1].lse.view();
  expect_ok(minf_merge_attention(&out_a, &lse_a, &out_b, &lse_b, &out_a, &lse_a, nullptr), "merge");
  check_against_reference(dense, parts[0], "merged");
}

}  // namespace

int main() {
  for (int32_t i = 0; i < minf_cpu_isa_count(); ++i) {
    minf_capability isa;
    expect_ok(minf_cpu_isa(i, &isa), "minf_cpu_isa");
    if (isa.available == 0) {
      std::printf("skipped %s: %s\n", isa.name, isa.reason);
      continue;
    }
    expect_ok(minf_set_cpu_isa(isa.name), isa.name);
    test_all_patterns(isa.name);
    test_shared_patterns(isa.name);
  }
  expect_ok(minf_set_cpu_isa(nullptr), "restore");
  test_threads_change_nothing();
  test_strides_change_nothing();
  test_merge();
  return minference::test::finish();
}
