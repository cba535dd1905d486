// Block-sparse estimation on emulated threads: lists against float64 scores and against the CPU
// backend's, in one pass over the keys and in several. The stages of both CUDA backends go through
// the same checks.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <iostream>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "block_sparse_reference.h"
#include "check.h"
#include "core/backend.h"
#include "cpu/backend.h"
#include "cpu/stages.h"
#include "cuda/sm80/kernels.h"
#include "cuda/sm80/stages.h"
#include "cuda/sm90/kernels.h"
#include "cuda/sm90/stages.h"
#include "device_array.h"
#include "extent.h"
#include "simt/simt.h"

namespace {

using namespace minference;
using namespace minference::test;

/// Fills entries between the lists.
constexpr int32_t kCanary = -77;

void serial_for(int64_t num_tasks, minf_task task, void* task_context, void*) {
  for (int64_t i = 0; i < num_tasks; ++i) task(i, task_context);
}

/// A backend's stage.
struct Stage {
  using Limits = cuda::BlockSparseLimits;
  std::size_t (*bytes)(const EstimateBlockSparseArgs&, const Executor&);
  void (*estimate)(const EstimateBlockSparseArgs&, Workspace, const Executor&);
  std::size_t (*bytes_with)(const EstimateBlockSparseArgs&, const Limits&);
  void (*estimate_with)(const EstimateBlockSparseArgs&, Workspace, const Executor&, const Limits&);
  std::size_t max_shared_bytes;
};

template <cuda::BlockSparseKernels kKernels>
constexpr Stage stage_of(std::size_t max_shared_bytes) {
  return {.bytes = cuda::block_sparse_bytes<kKernels>,
          .estimate = cuda::estimate_block_sparse_with<kKernels>,
          .bytes_with =
              [](const EstimateBlockSparseArgs& args, const Stage::Limits& limits) {
                return cuda::estimate_block_sparse_bytes(args, kKernels(args.shape), limits);
              },
          .estimate_with =
              [](const EstimateBlockSparseArgs& args, Workspace workspace, const Executor& executor,
                 const Stage::Limits& limits) {
                cuda::estimate_block_sparse(args, kKernels(args.shape), limits, workspace,
                                            static_cast<cudaStream_t>(executor.stream));
              },
          .max_shared_bytes = max_shared_bytes};
}
constexpr Stage kSm80 = stage_of<sm80::block_sparse_kernels>(99 * 1024);
constexpr Stage kSm90 = stage_of<sm90::block_sparse_kernels>(227 * 1024);
const Stage* stage = nullptr;  // The one under test.

int64_t num_lists = 0;
int64_t num_separated = 0;

class Comparison {
 public:
  explicit Comparison(const Problem& problem) : problem_(problem) {
    std::mt19937_64 random(problem.seed);
    q_.heads = problem.heads_q;
    q_.seqlen = problem.seqlen_q;
    k_.heads = problem.heads_kv;
    k_.seqlen = problem.seqlen_k;
    q_.head_dim = k_.head_dim = problem.head_dim;
    fill(q_, problem, /*is_key=*/false, random);
    fill(k_, problem, /*is_key=*/true, random);
    if (problem.edit) problem.edit(q_.values, k_.values);
    place(q_, problem);
    place(k_, problem);
    std::size_t entries = 0;
    for (int32_t b = 0; b < problem.batch; ++b) {
      for (int32_t h = 0; h < problem.heads_q; ++h) {
        const int32_t top_k = problem.top_k[static_cast<std::size_t>(h) % problem.top_k.size()];
        if (top_k == 0) continue;
        targets_.push_back(
            {.batch = b, .head = h, .top_k = top_k, .row_stride = top_k + problem.gap});
        begin_.push_back(entries);
        entries +=
            static_cast<std::size_t>(problem.lengths().row_blocks() * targets_.back().row_stride);
      }
    }
    num_entries_ = entries;
  }

  std::vector<int32_t> on_cpu() {
    std::vector<int32_t> lists(num_entries_, kCanary);
    const EstimateBlockSparseArgs args = args_with(q_.bits.data(), k_.bits.data(), lists.data());
    const Executor executor{.parallel_for = &serial_for};
    std::vector<std::byte> memory(cpu::estimate_block_sparse_bytes(args, executor) + 64);
    void* start = memory.data();
    std::size_t bytes = memory.size();
    std::align(64, bytes - 64, start, bytes);
    cpu::estimate_block_sparse(args, {static_cast<std::byte*>(start), bytes}, executor);
    return lists;
  }

  /// Runs the stage with the backend's own limits, or with others.
  std::vector<int32_t> on_threads(const cuda::BlockSparseLimits* limits = nullptr) {
    const DeviceArray<uint16_t> q(q_.bits), k(k_.bits);
    const DeviceArray<int32_t> lists(std::vector<int32_t>(num_entries_, kCanary));
    const EstimateBlockSparseArgs args = args_with(q.data(), k.data(), lists.data());
    if (limits != nullptr) {
      const DeviceArray<std::byte> memory(stage->bytes_with(args, *limits));
      stage->estimate_with(args, memory.span(), Executor{}, *limits);
    } else {
      const DeviceArray<std::byte> memory(stage->bytes(args, Executor{}));
      stage->estimate(args, memory.span(), Executor{});
    }
    return lists.host();
  }

  /// Compares all lists with the definition, and with `cpu` if given.
  void check(const std::vector<int32_t>& lists, const std::vector<int32_t>* cpu,
             const std::string& name) const {
    for (std::size_t t = 0; t < targets_.size(); ++t) {
      const BlockSparseTarget& target = targets_[t];
      const Means q = means_of(q_, target.batch, target.head);
      const Means k =
          means_of(k_, target.batch, target.head / (problem_.heads_q / problem_.heads_kv));
      for (int32_t r = 0; r < problem_.lengths().row_blocks(); ++r) {
        const std::size_t begin = begin_[t] + static_cast<std::size_t>(r * target.row_stride);
        const auto entry = lists.begin() + static_cast<std::ptrdiff_t>(begin);
        const auto end = entry + target.top_k;
        const auto fill = std::find(entry, end, -1);
        const Expected expected = expect(problem_, q, k, r, target.top_k);
        const std::vector<int32_t> list(entry, fill);
        CHECK(acceptable(list, expected, problem_.top_p < 1), name, "head", target.head,
              "row block", r, "of", problem_.lengths().row_blocks(), "entries", list.size(), "for",
              expected.list.size());
        CHECK(std::all_of(fill, end, [](int32_t n) { return n == -1; }), name, "row block", r);
        CHECK(std::all_of(end, entry + target.row_stride, [](int32_t n) { return n == kCanary; }),
              name, "row block", r);
        ++num_lists;
        if (!expected.separated) continue;
        ++num_separated;
        if (cpu == nullptr) continue;
        CHECK(std::equal(entry, end, cpu->begin() + static_cast<std::ptrdiff_t>(begin)), name,
              "head", target.head, "row block", r);
      }
    }
  }

 private:
  EstimateBlockSparseArgs args_with(const void* q, const void* k, int32_t* lists) {
    for (std::size_t t = 0; t < targets_.size(); ++t) targets_[t].block_index = lists + begin_[t];
    EstimateBlockSparseArgs args{.shape = {.dtype = problem_.dtype,
                                           .batch = problem_.batch,
                                           .num_heads_q = problem_.heads_q,
                                           .num_heads_kv = problem_.heads_kv,
                                           .head_dim = problem_.head_dim,
                                           .lengths = problem_.lengths()},
                                 .q = q_.tokens,
                                 .k = {k_.tokens},
                                 .softmax_scale = problem_.softmax_scale,
                                 .top_p = problem_.top_p,
                                 .targets = targets_};
    args.q.data = q;
    args.k.tensor.data = k;
    return args;
  }

  const Problem problem_;
  Tensor q_, k_;
  std::vector<BlockSparseTarget> targets_;
  std::vector<std::size_t> begin_;
  std::size_t num_entries_ = 0;
};

test::Extent comparison_extent = test::Extent::kAll;
std::size_t num_comparisons = 0;

/// Compares both ways to select, and the CPU.
void compare(const std::string& name, const Problem& problem) {
  if (!test::is_checked(comparison_extent, num_comparisons++)) return;
  Comparison comparison(problem);
  const std::vector<int32_t> cpu = comparison.on_cpu();
  const std::vector<int32_t> streamed = comparison.on_threads();
  comparison.check(streamed, &cpu, name);
  const cuda::BlockSparseLimits none_streamed{.max_streamed_top_k = 0};
  const std::vector<int32_t> by_digits = comparison.on_threads(&none_streamed);
  CHECK(by_digits == streamed, name, "seed", problem.seed);
}

const DType kDTypes[] = {DType::kBFloat16, DType::kFloat16};

void test_shapes() {
  const int32_t shapes[][2] = {{1, 1},      {1, 64},    {1, 65},     {64, 64},   {65, 65},
                               {63, 191},   {1, 700},   {700, 700},  {640, 640}, {300, 900},
                               {128, 1000}, {65, 1290}, {1100, 1101}};
  for (const auto& [seqlen_q, seqlen_k] : shapes) {
    for (const DType dtype : kDTypes) {
      for (const int32_t top_k : {1, 2, 3, 7, 100}) {
        compare("shape " + std::to_string(seqlen_q) + " " + std::to_string(seqlen_k),
                {.dtype = dtype,
                 .seqlen_q = seqlen_q,
                 .seqlen_k = seqlen_k,
                 .top_k = {top_k},
                 .seed = static_cast<uint64_t>(top_k)});
      }
    }
  }
}

void test_head_dims() {
  for (const DType dtype : kDTypes) {
    for (const int32_t head_dim : {8, 64, 72, 80, 96, 128, 136, 192, 256}) {
      compare("head_dim " + std::to_string(head_dim), {.dtype = dtype,
                                                       .heads_q = 2,
                                                       .seqlen_q = 200,
                                                       .seqlen_k = 1700,
                                                       .head_dim = head_dim,
                                                       .top_k = {7}});
    }
  }
}

void test_layouts_heads_and_waves() {
  for (const bool head_major : {false, true}) {
    Problem problem{.batch = 2,
                    .heads_q = 6,
                    .heads_kv = 2,
                    .seqlen_q = 300,
                    .seqlen_k = 1000,
                    .head_dim = 72,
                    .top_k = {5, 1, 0, 40, 9, 2},
                    .head_major = head_major,
                    .gap = 9};
    compare("layout", problem);
    Comparison comparison(problem);
    const std::vector<int32_t> want = comparison.on_threads();
    // A head takes 24 KiB, and so do its keys: waves of up to 3 heads of a group, and of 1.
    for (const int64_t wave_bytes : {int64_t{100} << 10, int64_t{1}}) {
      const cuda::BlockSparseLimits limits{.wave_bytes = wave_bytes};
      CHECK(comparison.on_threads(&limits) == want, "wave", wave_bytes);
    }
  }
}

/// More row blocks than a thread block takes, and more candidates than fit a row block's storage.
void test_many_blocks() {
  for (const Values values : {Values::kNormal, Values::kRising, Values::kFalling,
                              Values::kEqualKeys, Values::kFewScores}) {
    for (const int32_t top_k : {3, 100, 128}) {
      compare("many blocks " + std::to_string(static_cast<int>(values)),
              {.seqlen_q = 70 * kBlock - 5,
               .seqlen_k = 330 * kBlock - 20,
               .head_dim = 64,
               .top_k = {top_k},
               .values = values,
               .seed = static_cast<uint64_t>(top_k)});
    }
  }
  for (const DType dtype : kDTypes) {
    for (const int32_t head_dim : {128, 192, 256}) {
      compare("many blocks, head_dim " + std::to_string(head_dim), {.dtype = dtype,
                                                                    .seqlen_q = 2 * kBlock,
                                                                    .seqlen_k = 240 * kBlock,
                                                                    .head_dim = head_dim,
                                                                    .top_k = {100}});
    }
  }
  compare("more than 65535 rows",
          {.seqlen_q = 70'000, .seqlen_k = 70'001, .head_dim = 8, .top_k = {20}});
  compare("long lists", {.heads_q = 3,
                         .seqlen_q = 66 * kBlock,
                         .seqlen_k = 250 * kBlock + 3,
                         .head_dim = 96,
                         .top_k = {129, 200, 300}});
}

void test_mass_budget() {
  for (const double top_p : {1e-6, 0.05, 0.3, 0.6, 0.9, 0.999999}) {
    for (const double softmax_scale : {0.125, 2.0, -1.0, 0.0}) {
      compare("mass " + std::to_string(top_p) + " " + std::to_string(softmax_scale),
              {.heads_q = 2,
               .seqlen_q = 640,
               .seqlen_k = 900,
               .top_k = {12, 4},
               .top_p = top_p,
               .softmax_scale = softmax_scale});
    }
  }
  compare("mass of all",
          {.heads_q = 1, .seqlen_q = 300, .seqlen_k = 300, .top_k = {40}, .top_p = 0.5});
  for (const Values values : {Values::kNormal, Values::kRising, Values::kEqualKeys}) {
    compare("mass of many", {.heads_q = 2,
                             .seqlen_q = 2 * kBlock,
                             .seqlen_k = 260 * kBlock,
                             .top_k = {100, 180},
                             .top_p = 0.5,
                             .values = values});
  }
}

/// Each padded head_dim has its own kernel: tests each way to select on each.
void test_choices_at_all_dims(test::Extent extent) {
  for (const int32_t head_dim : {96, 128, 192, 256}) {
    if (extent != test::Extent::kAll && head_dim != 256) continue;  // 64 and 128: the other cases.
    const std::string name = "head_dim " + std::to_string(head_dim) + ": ";
    compare(name + "mass", {.heads_q = 2,
                            .seqlen_q = 640,
                            .seqlen_k = 900,
                            .head_dim = head_dim,
                            .top_k = {12, 4},
                            .top_p = 0.6});
    compare(name + "forced",
            {.seqlen_q = 330, .seqlen_k = 394, .head_dim = head_dim, .top_k = {3}});
    compare(name + "all", {.seqlen_q = 400, .seqlen_k = 500, .head_dim = head_dim, .top_k = {40}});
    for (const Values values : {Values::kRising, Values::kEqualKeys}) {
      compare(name + "mass of equals", {.heads_q = 2,
                                        .seqlen_q = 2 * kBlock,
                                        .seqlen_k = 260 * kBlock,
                                        .head_dim = head_dim,
                                        .top_k = {100, 180},
                                        .top_p = 0.5,
                                        .values = values});
    }
    compare(name + "mass, not finite",
            {.seqlen_q = 400,
             .seqlen_k = 1000,
             .head_dim = head_dim,
             .top_k = {5},
             .top_p = 0.9,
             .edit = [&](std::vector<double>& q, std::vector<double>& k) {
               q[200 * static_cast<std::size_t>(head_dim) + 3] = std::nan("");
               k[500 * static_cast<std::size_t>(head_dim)] = kInfinity;
             }});
    compare(name + "mass of many", {.heads_q = 2,
                                    .seqlen_q = 2 * kBlock,
                                    .seqlen_k = 260 * kBlock,
                                    .head_dim = head_dim,
                                    .top_k = {100, 180},
                                    .top_p = 0.5});
    for (const Values values :
         {Values::kNormal, Values::kRising, Values::kEqualKeys, Values::kFewScores}) {
      const bool is_long = values == Values::kNormal || values == Values::kRising;
      compare(name + "many", {.seqlen_q = (is_long ? 70 : 3) * kBlock - 5,
                              .seqlen_k = 330 * kBlock - 20,
                              .head_dim = head_dim,
                              .top_k = {values == Values::kNormal ? 3
                                        : is_long                 ? 128
                                                                  : 60},
                              .values = values});
    }
  }
}

/// NaN or inf in one row of q and in one row of k: only the blocks of those rows change.
void test_rows_that_are_not_finite() {
  for (const double poison : {std::nan(""), kInfinity, -kInfinity}) {
    for (const double top_p : {1.0, 0.9}) {
      compare("not finite", {.seqlen_q = 400,
                             .seqlen_k = 1000,
                             .top_k = {5},
                             .top_p = top_p,
                             .edit = [&](std::vector<double>& q, std::vector<double>& k) {
                               q[200 * 64 + 3] = poison;
                               k[70 * 64 + 63] = poison;
                               k[500 * 64] = poison;
                             }});
    }
  }
}

/// Row blocks that see only their diagonal: every block is forced, and small lists truncate them.
void test_forced_blocks() {
  for (const int32_t offset : {0, 1, 63, 64, 100}) {
    for (const int32_t top_k : {1, 2, 3, 4}) {
      compare("forced", {.seqlen_q = 330,
                         .seqlen_k = 330 + offset,
                         .head_dim = 8,
                         .top_k = {top_k},
                         .values = Values::kFalling});
    }
  }
}

/// Work memory depends on the shape alone, and is small.
void test_bytes() {
  std::vector<BlockSparseTarget> targets;
  for (int32_t head = 0; head < 32; ++head) targets.push_back({.head = head, .top_k = 1});
  EstimateBlockSparseArgs args{.shape = {.dtype = DType::kBFloat16,
                                         .batch = 1,
                                         .num_heads_q = 32,
                                         .num_heads_kv = 8,
                                         .head_dim = 128,
                                         .lengths = {1 << 20, 1 << 20}},
                               .q = {},
                               .k = {},
                               .targets = targets};
  const std::size_t bytes = stage->bytes(args, Executor{});
  CHECK(bytes <= std::size_t{48} << 20, bytes);
  for (BlockSparseTarget& target : targets) target.top_k = 1 << 14;
  CHECK(stage->bytes(args, Executor{}) == bytes);
  // The longest call possible: one head of queries and keys at a time.
  args.shape.lengths = {1 << 30, 1 << 30};
  CHECK(stage->bytes(args, Executor{}) <= (std::size_t{2} << 33) + 4096);
}

void test_any(uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto between = [&](int32_t low, int32_t high) {
    return low + static_cast<int32_t>(random() % static_cast<uint64_t>(high - low + 1));
  };
  const int32_t group = between(1, 3), heads_kv = between(1, 2);
  const int32_t seqlen_k = between(1, 2000);
  compare("any " + std::to_string(seed), {.dtype = kDTypes[between(0, 1)],
                                          .batch = between(1, 2),
                                          .heads_q = group * heads_kv,
                                          .heads_kv = heads_kv,
                                          .seqlen_q = between(1, std::min(seqlen_k, 500)),
                                          .seqlen_k = seqlen_k,
                                          .head_dim = 8 * between(1, 32),
                                          .top_k = {between(1, 12), between(1, 40)},
                                          .head_major = between(0, 1) == 1,
                                          .gap = between(0, 20),
                                          .values = static_cast<Values>(between(0, 4)),
                                          .seed = seed});
}

void test_stage(const Stage& under_test, test::Extent extent) {
  stage = &under_test;
  simt::options() = {};
  simt::options().max_shared_bytes = under_test.max_shared_bytes;
  test_shapes();
  test_head_dims();
  test_layouts_heads_and_waves();
  test_many_blocks();
  test_mass_budget();
  test_choices_at_all_dims(extent);
  test_rows_that_are_not_finite();
  test_forced_blocks();
  test_bytes();
  simt::options().schedule = simt::Schedule::kRandom;
  simt::options().async = simt::AsyncCopies::kRandom;
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    simt::options().seed = seed;
    test_any(seed);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const test::Extent extent = test::extent_of(argc, argv, /*index=*/1);
  if (extent == test::Extent::kBrief) comparison_extent = extent;
  test_stage(kSm80, extent);
  test_stage(kSm90, extent);
  // A comparison that leaves out most lists would show little.
  CHECK(10 * num_separated > 8 * num_lists, num_separated, "of", num_lists);
  std::cout << num_lists << " lists, " << num_separated << " with one answer\n";
  return test::finish();
}
