// Vertical-slash estimation on emulated threads, by sm80's and sm90's kernels: column and diagonal
// sums against float64, indices against the CPU backend's, the same bits under every schedule.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <iostream>
#include <iterator>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "check.h"
#include "core/thread_pool.h"
#include "core/workspace.h"
#include "cpu/backend.h"
#include "cpu/stages.h"
#include "cuda/sm80/kernels.h"
#include "cuda/sm80/stages.h"
#include "cuda/sm90/kernels.h"
#include "cuda/sm90/stages.h"
#include "device_array.h"
#include "extent.h"
#include "simt/simt.h"
#include "vertical_slash_call.h"

namespace {

using namespace minference;
using namespace minference::test;

/// The stage of one backend.
struct Stage {
  const char* name;
  std::size_t max_shared_bytes;
  cuda::ScoreKernels (*kernels)(const Shape& shape);
  std::size_t (*bytes)(const EstimateVerticalSlashArgs&, const Executor&);
  void (*estimate)(const EstimateVerticalSlashArgs&, Workspace, const Executor&);
};

constexpr Stage kStages[] = {
    {"sm80", std::size_t{99} << 10, &sm80::score_kernels, &sm80::estimate_vertical_slash_bytes,
     &sm80::estimate_vertical_slash},
    {"sm90", std::size_t{227} << 10, &sm90::score_kernels, &sm90::estimate_vertical_slash_bytes,
     &sm90::estimate_vertical_slash},
};

struct Scores {
  std::vector<float> vertical, slash;  // [targets][seqlen_k]
};

/// Column and diagonal sums, wave after wave.
Scores scores_of(const Stage& stage, const Call& call, const cuda::ScoreLimits& limits) {
  const cuda::ScoreKernels kernels = stage.kernels(call.args.shape);
  const cuda::ScoreDivision division(call.args, kernels, limits);
  const int32_t seqlen_k = call.args.shape.lengths.seqlen_k;
  WorkspaceAllocator counter;
  cuda::ScoreMemory(counter, division, seqlen_k);
  const DeviceArray<std::byte> bytes(counter.bytes());
  WorkspaceAllocator allocator(bytes.span());
  const cuda::ScoreMemory memory(allocator, division, seqlen_k);
  cuda::store_groups(division, memory, nullptr);
  Scores scores;
  for (const cuda::ScoreWave& wave : division.waves) {
    cuda::launch_scores(call.args, kernels, division, wave, memory, nullptr);
    const std::size_t count = wave.num_targets * static_cast<std::size_t>(seqlen_k);
    const std::size_t row_bytes = count * sizeof(float);
    CHECK(simt::first_uninitialized(memory.vertical, row_bytes) == row_bytes);
    CHECK(simt::first_uninitialized(memory.slash, row_bytes) == row_bytes);
    scores.vertical.insert(scores.vertical.end(), memory.vertical, memory.vertical + count);
    scores.slash.insert(scores.slash.end(), memory.slash, memory.slash + count);
  }
  return scores;
}

void check_scores(const Case& c, const Call& call, const Scores& scores,
                  const std::vector<Expected>& expected) {
  const auto seqlen_k = static_cast<std::size_t>(c.seqlen_k);
  for (std::size_t t = 0; t < call.targets.size(); ++t) {
    const Expected& want = expected[t];
    for (std::size_t i = 0; i < seqlen_k; ++i) {
      const double vertical = scores.vertical[t * seqlen_k + i];
      const double slash = scores.slash[t * seqlen_k + i];
      // Kernels flush P below 2^-126 to 0.
      const double least = 64 * 0x1p-126;
      CHECK(std::abs(vertical - want.vertical[i]) <= want.bound * want.vertical[i] + least, c.name,
            "target", t, "column", i, "got", vertical, "want", want.vertical[i]);
      CHECK(std::abs(slash - want.slash[i]) <= want.bound * want.slash[i] + least, c.name, "target",
            t, "distance", i, "got", slash, "want", want.slash[i]);
    }
  }
}

struct Indices {
  std::vector<std::vector<int32_t>> vertical, slash;  // [targets][size]
};

using Estimate = std::function<void(const EstimateVerticalSlashArgs&)>;

/// Gives the call's targets index lists made by `make`, and runs the call.
template <typename List>
Indices indices_of(const Call& call, const Estimate& estimate) {
  std::vector<VerticalSlashTarget> targets = call.targets;
  std::vector<List> lists;
  for (VerticalSlashTarget& target : targets) {
    target.vertical_index =
        lists.emplace_back(static_cast<std::size_t>(target.vertical_size)).data();
    target.slash_index = lists.emplace_back(static_cast<std::size_t>(target.slash_size)).data();
  }
  EstimateVerticalSlashArgs args = call.args;
  args.targets = targets;
  estimate(args);
  Indices indices;
  for (std::size_t t = 0; t < targets.size(); ++t) {
    const auto* vertical = lists[2 * t].data();
    const auto* slash = lists[2 * t + 1].data();
    indices.vertical.emplace_back(vertical, vertical + targets[t].vertical_size);
    indices.slash.emplace_back(slash, slash + targets[t].slash_size);
  }
  return indices;
}

Indices gpu_indices(const Stage& stage, const Call& call) {
  return indices_of<DeviceArray<int32_t>>(call, [&](const EstimateVerticalSlashArgs& args) {
    const DeviceArray<std::byte> workspace(stage.bytes(args, {}));
    stage.estimate(args, workspace.span(), {});
  });
}

Indices cpu_indices(const Call& call) {
  return indices_of<std::vector<int32_t>>(call, [](const EstimateVerticalSlashArgs& args) {
    const Executor executor{.num_threads = 1, .parallel_for = &pool_parallel_for};
    std::vector<std::byte> memory(cpu::estimate_vertical_slash_bytes(args, executor) + 64);
    const std::size_t skip = -reinterpret_cast<std::uintptr_t>(memory.data()) % 64;
    cpu::estimate_vertical_slash(args, Workspace(memory).subspan(skip, memory.size() - 64),
                                 executor);
  });
}

/// The two lists must be equal except for entries whose scores are too close to tell. `scores` and
/// `bound` are the float64 ones; `share` is the budget (vertical_p or slash_p).
void check_selection(const std::string& what, const std::vector<int32_t>& got,
                     const std::vector<int32_t>& cpu, int32_t forced, double share,
                     const std::vector<double>& scores, double bound) {
  const auto end = std::ranges::find(got, -1);
  CHECK(std::all_of(end, got.end(), [](int32_t i) { return i == -1; }), what);
  CHECK(std::is_sorted(got.begin(), end, std::less_equal<>()), what);
  for (int32_t i = 0; i < forced; ++i) CHECK(got[static_cast<std::size_t>(i)] == i, what, i);

  const std::set<int32_t> got_set(got.begin(), end);
  const std::set<int32_t> cpu_set(cpu.begin(), std::ranges::find(cpu, -1));
  if (got_set == cpu_set) return;
  const auto score = [&](int32_t i) { return scores[static_cast<std::size_t>(i)]; };
  double lowest = std::numeric_limits<double>::infinity(), mass = 0, total = 0;
  for (const int32_t i : cpu_set) {
    mass += score(i);
    if (i >= forced) lowest = std::min(lowest, score(i));
  }
  for (const double s : scores) total += s;
  if (share < 1 && got_set.size() != cpu_set.size()) {
    // One of the two takes an entry more to reach a budget that the other already counts as
    // reached.
    const bool fewer = got_set.size() < cpu_set.size();
    CHECK(got_set.size() == cpu_set.size() + (fewer ? -1u : 1u), what);
    CHECK(std::abs((fewer ? mass - lowest : mass) - share * total) <= bound * total, what);
    return;
  }
  CHECK(got_set.size() == cpu_set.size(), what, got_set.size(), cpu_set.size());
  std::vector<int32_t> differ;
  std::ranges::set_symmetric_difference(got_set, cpu_set, std::back_inserter(differ));
  for (const int32_t i : differ) {
    CHECK(std::abs(score(i) - lowest) <= 2 * bound * lowest, what, i, score(i), lowest);
  }
}

void check_stage(const Stage& stage, const Case& c, const Call& call,
                 const std::vector<Expected>& expected, const Indices& cpu) {
  simt::options() = {.max_shared_bytes = stage.max_shared_bytes};
  const Scores scores = scores_of(stage, call, c.limits);
  check_scores(c, call, scores, expected);
  const Indices got = gpu_indices(stage, call);
  for (std::size_t t = 0; t < call.targets.size(); ++t) {
    const std::string what =
        std::string(stage.name) + ' ' + c.name + " target " + std::to_string(t);
    check_selection(what + " columns", got.vertical[t], cpu.vertical[t], call.args.sink,
                    c.vertical_p, expected[t].vertical, expected[t].bound);
    check_selection(what + " distances", got.slash[t], cpu.slash[t], call.args.local, c.slash_p,
                    expected[t].slash, expected[t].bound);
  }

  simt::options().schedule = simt::Schedule::kRandom;
  for (const auto async : {simt::AsyncCopies::kRandom, simt::AsyncCopies::kEager}) {
    ++simt::options().seed;
    simt::options().async = async;
    const Scores again = scores_of(stage, call, c.limits);
    CHECK(again.vertical == scores.vertical && again.slash == scores.slash, stage.name, c.name);
  }
}

void check_case(const Case& c) {
  const Call call(c);
  std::vector<Expected> expected;
  for (const VerticalSlashTarget& target : call.targets) expected.push_back(call.expected(target));
  const Indices cpu = cpu_indices(call);
  for (const Stage& stage : kStages) check_stage(stage, c, call, expected, cpu);
}

constexpr DType kBf16 = DType::kBFloat16;
constexpr DType kFp16 = DType::kFloat16;

// clang-format off: keeps a case on one or two lines.
const Case kCases[] = {
    {.name = "group of 4", .head_dim = 128, .num_heads_q = 8, .num_heads_kv = 2, .batch = 2,
     .seqlen_q = 300, .seqlen_k = 300},
    {.name = "group of 1", .dtype = kFp16, .num_heads_q = 2, .num_heads_kv = 2, .seqlen_k = 1000},
    {.name = "one token", .dtype = kFp16, .seqlen_q = 1, .seqlen_k = 1},
    {.name = "63 tokens", .head_dim = 72, .num_heads_q = 2, .seqlen_q = 63, .seqlen_k = 63},
    {.name = "64 tokens", .dtype = kFp16, .head_dim = 96, .num_heads_q = 2},
    {.name = "65 tokens", .dtype = kFp16, .head_dim = 80, .num_heads_q = 3, .num_heads_kv = 3,
     .batch = 2, .seqlen_q = 65, .seqlen_k = 65, .layout = Layout::kHeads},
    {.name = "masked from a tile's last key", .seqlen_k = 158},
    {.name = "17 rows", .head_dim = 96, .num_heads_q = 7, .seqlen_q = 100, .seqlen_k = 1000,
     .last_q = 17, .layout = Layout::kPadded},
    {.name = "group of 8", .dtype = kFp16, .head_dim = 128, .num_heads_q = 8, .seqlen_k = 700,
     .scale = -0.11},
    {.name = "groups of 3", .head_dim = 192, .num_heads_q = 6, .seqlen_q = 300, .seqlen_k = 300},
    {.name = "widest", .dtype = kFp16, .head_dim = 256, .num_heads_q = 4, .num_heads_kv = 2,
     .batch = 2, .seqlen_q = 100, .seqlen_k = 330, .layout = Layout::kHeads},
    {.name = "192 dims, masked and late keys", .dtype = kFp16, .head_dim = 192, .num_heads_q = 8,
     .num_heads_kv = 2, .seqlen_q = 150, .seqlen_k = 1000, .last_q = 40},
    {.name = "192 dims, non-finite", .dtype = kFp16, .head_dim = 192, .num_heads_q = 4,
     .num_heads_kv = 2, .seqlen_q = 200, .seqlen_k = 700, .scale = -0.2, .non_finite = true},
    {.name = "192 dims, one row", .head_dim = 192, .num_heads_q = 2, .seqlen_q = 300,
     .seqlen_k = 1500, .last_q = 1},
    {.name = "256 dims, non-finite", .head_dim = 256, .num_heads_q = 4, .num_heads_kv = 2,
     .seqlen_q = 200, .seqlen_k = 700, .non_finite = true},
    {.name = "256 dims, masked and late keys", .head_dim = 256, .num_heads_q = 8,
     .num_heads_kv = 2, .seqlen_q = 150, .seqlen_k = 1000, .last_q = 40},
    {.name = "256 dims, 17 rows", .dtype = kFp16, .head_dim = 256, .num_heads_q = 2,
     .seqlen_q = 100, .seqlen_k = 1000, .last_q = 17, .scale = -0.1},
    {.name = "groups of 6", .num_heads_q = 12, .seqlen_q = 20, .seqlen_k = 520},
    {.name = "zero scale", .dtype = kFp16, .num_heads_q = 2, .num_heads_kv = 2, .seqlen_q = 100,
     .seqlen_k = 100, .zero_scale = true},
    {.name = "one row", .dtype = kFp16, .head_dim = 128, .num_heads_q = 2, .seqlen_q = 300,
     .seqlen_k = 1500, .last_q = 1},
    {.name = "steep", .num_heads_q = 3, .seqlen_q = 128, .seqlen_k = 600, .scale = 4},
    {.name = "non-finite", .num_heads_q = 4, .num_heads_kv = 2, .seqlen_q = 200, .seqlen_k = 700,
     .non_finite = true},
    {.name = "non-finite, absent rows", .dtype = kFp16, .num_heads_q = 4, .num_heads_kv = 2,
     .seqlen_q = 40, .seqlen_k = 300, .last_q = 17, .scale = -0.2, .non_finite = true},
    {.name = "masses", .num_heads_q = 4, .num_heads_kv = 2, .batch = 2, .seqlen_q = 100,
     .seqlen_k = 700, .scale = 0.25, .vertical_p = 0.9, .slash_p = 0.7},
    {.name = "some heads", .num_heads_q = 8, .num_heads_kv = 2, .seqlen_k = 100,
     .heads = {0, 2, 3, 5}},
    {.name = "many waves", .dtype = kFp16, .num_heads_q = 4, .num_heads_kv = 2, .batch = 2,
     .seqlen_q = 100, .seqlen_k = 300, .limits = {.wave_bytes = 8 * 300 * 5}},
    {.name = "one chunk", .head_dim = 80, .num_heads_q = 2, .seqlen_q = 100, .seqlen_k = 1500,
     .limits = {.pass_blocks = 1}},
};
// clang-format on

/// With no rows nothing is computed and there is no work memory: forced entries, then the smallest
/// indices.
void check_no_rows(const Stage& stage) {
  constexpr int32_t kHeads = 150;   // More lists than one launch takes.
  constexpr int32_t kSlash = 1400;  // More entries than a block has threads, several times.
  const DeviceArray<int32_t> vertical(kHeads * 40), slash(kHeads * kSlash);
  std::vector<VerticalSlashTarget> targets;
  for (int32_t head = 0; head < kHeads; ++head) {
    targets.push_back({.head = head,
                       .vertical_size = 40,
                       .slash_size = kSlash,
                       .vertical_index = vertical.data() + head * 40,
                       .slash_index = slash.data() + head * kSlash});
  }
  const EstimateVerticalSlashArgs args{.shape = {.dtype = kBf16,
                                                 .batch = 1,
                                                 .num_heads_q = kHeads,
                                                 .num_heads_kv = kHeads,
                                                 .head_dim = 64,
                                                 .lengths = {0, 2000}},
                                       .q = {},
                                       .k = {},
                                       .sink = 30,
                                       .local = 100,
                                       .slash_p = 0.5,
                                       .targets = targets};
  CHECK(stage.bytes(args, {}) == 0);
  stage.estimate(args, {}, {});
  CHECK(vertical.written() && slash.written());
  for (int32_t i = 0; i < kHeads * 40; ++i) CHECK(vertical.data()[i] == i % 40, i);
  for (int32_t i = 0; i < kHeads * kSlash; ++i) {
    CHECK(slash.data()[i] == (i % kSlash < 100 ? i % kSlash : -1), i);
  }
}

/// All KV heads share one set of keys by a stride of 0, which TMA does not take; sm80's passes
/// serve the call.
void check_repeated_keys() {
  const Case c{.name = "repeated keys", .num_heads_q = 4, .num_heads_kv = 2, .seqlen_k = 300};
  Call call(c);
  call.args.k.tensor.head_stride = 0;
  simt::options() = {.max_shared_bytes = kStages[1].max_shared_bytes};
  const Indices sm80 = gpu_indices(kStages[0], call);
  const Indices sm90 = gpu_indices(kStages[1], call);
  CHECK(sm80.vertical == sm90.vertical && sm80.slash == sm90.slash);
}

/// `parts`: the number of groups that 12 heads are divided into.
void check_division(const Stage& stage, std::size_t parts) {
  std::vector<VerticalSlashTarget> targets;
  for (int32_t head = 0; head < 12; ++head) targets.push_back({.head = head});
  EstimateVerticalSlashArgs args{.shape = {.dtype = kBf16,
                                           .batch = 1,
                                           .num_heads_q = 12,
                                           .num_heads_kv = 1,
                                           .head_dim = 128,
                                           .lengths = {64, 1 << 20}},
                                 .q = {},
                                 .k = {},
                                 .last_q = 64,
                                 .targets = targets};
  const cuda::ScoreKernels kernels = stage.kernels(args.shape);
  const cuda::ScoreDivision division(args, kernels);
  const std::size_t heads = 12 / parts;
  CHECK(division.groups.size() == parts && division.max_group_heads == int32_t(heads));
  CHECK(division.waves.size() == parts && division.max_wave_targets == heads);
  CHECK(division.chunk_keys % static_cast<int32_t>(kernels.key_step) == 0);
  CHECK(division.num_chunks <= 512);
  CHECK(int64_t{division.chunk_keys} * division.num_chunks >= 1 << 20);

  // Index memory for 32 heads at 1M keys with 8 KV heads.
  targets.clear();
  for (int32_t head = 0; head < 32; ++head) targets.push_back({.head = head});
  args.targets = targets;
  args.shape.num_heads_q = 32;
  args.shape.num_heads_kv = 8;
  CHECK(stage.bytes(args, {}) <= std::size_t{64} << 20);
  CHECK(cuda::ScoreDivision(args, kernels).waves.size() == 8);
}

}  // namespace

int main(int argc, char** argv) {
  const test::Extent extent = test::extent_of(argc, argv, /*index=*/1);
  check_division(kStages[0], /*parts=*/2);
  check_division(kStages[1], /*parts=*/3);
  for (const Stage& stage : kStages) check_no_rows(stage);
  check_repeated_keys();
  for (std::size_t i = 0; i < std::size(kCases); ++i) {
    if (extent == test::Extent::kBrief && !test::is_checked(extent, i)) continue;
    std::cout << kCases[i].name << '\n' << std::flush;
    check_case(kCases[i]);
  }
  return test::finish();
}
