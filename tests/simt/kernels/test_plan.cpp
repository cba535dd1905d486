// CUDA's plan_vertical_slash() on emulated threads. It gives the runs of core/runs.h, on an invalid
// list those of the entries that count, and never writes outside the head's own lists.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "check.h"
#include "core/runs.h"
#include "cuda/common/stages.h"
#include "device_array.h"
#include "simt/simt.h"

namespace {

using namespace minference;
using test::DeviceArray;
using List = std::vector<int32_t>;

constexpr int32_t kCanary = 0x5eed;

/// The entries that count: those in [0, seqlen_k) that are larger than all before them.
List counting_entries(const List& distances, int32_t seqlen_k) {
  List entries;
  for (const int32_t d : distances) {
    if (d >= 0 && d < seqlen_k && (entries.empty() || d > entries.back())) entries.push_back(d);
  }
  return entries;
}

/// Runs and their numbers for [batch = 2, heads], with a gap between the lists of two heads.
struct PlannedRuns {
  std::vector<int32_t> words;
  std::vector<int32_t> counts;
  int64_t head_words = 0;
};

PlannedRuns plan(const std::vector<List>& lists, int32_t seqlen_k, int32_t spare_runs) {
  const auto heads = static_cast<int32_t>(lists.size() / 2);
  const auto size = static_cast<int32_t>(lists[0].size());
  const int32_t max_size = static_cast<int32_t>(max_runs(size, seqlen_k)) + spare_runs;
  PlannedRuns planned;
  planned.head_words = 2 * int64_t{max_size} + 3;  // Odd, so that runs are aligned to 4 bytes only.

  List flat;
  for (const List& list : lists) flat.insert(flat.end(), list.begin(), list.end());
  const DeviceArray<int32_t> slash_index(flat);
  const DeviceArray<int32_t> runs(
      List(lists.size() * static_cast<std::size_t>(planned.head_words), kCanary));
  const DeviceArray<int32_t> run_count(lists.size());
  cuda::plan_vertical_slash({.batch = 2,
                             .num_heads_q = heads,
                             .seqlen_k = seqlen_k,
                             .slash_index = {.data = slash_index.data(),
                                             .batch_stride_bytes = int64_t{4} * heads * size,
                                             .head_stride_bytes = int64_t{4} * size,
                                             .size = size},
                             .runs = {.data = reinterpret_cast<Run*>(runs.data()),
                                      .batch_stride_bytes = 4 * heads * planned.head_words,
                                      .head_stride_bytes = 4 * planned.head_words,
                                      .size = max_size},
                             .run_count = {.data = run_count.data(),
                                           .batch_stride_bytes = int64_t{4} * heads,
                                           .head_stride_bytes = 4,
                                           .size = 1}},
                            Executor{});
  planned.words = runs.host();
  planned.counts = run_count.host();
  return planned;
}

/// `lists` are of one size, and even in number.
void check_lists(const std::vector<List>& lists, int32_t seqlen_k, int32_t spare_runs) {
  const PlannedRuns planned = plan(lists, seqlen_k, spare_runs);
  for (std::size_t i = 0; i < lists.size(); ++i) {
    const List entries = counting_entries(lists[i], seqlen_k);
    std::vector<Run> runs(entries.size());
    const int32_t count =
        plan_runs(entries.data(), static_cast<int64_t>(entries.size()), runs.data());
    List expected;
    for (int32_t r = 0; r < count; ++r) {
      expected.push_back(runs[static_cast<std::size_t>(r)].lo);
      expected.push_back(runs[static_cast<std::size_t>(r)].hi);
    }
    expected.resize(static_cast<std::size_t>(planned.head_words - 3), 0);
    expected.insert(expected.end(), 3, kCanary);
    const auto begin = planned.words.begin() + static_cast<int64_t>(i) * planned.head_words;
    const bool equal = std::equal(expected.begin(), expected.end(), begin);
    CHECK(equal, "list", i, "size", lists[i].size(), "seqlen_k", seqlen_k);
    CHECK(planned.counts[i] == count, "list", i, "size", lists[i].size(), "seqlen_k", seqlen_k);
  }
}

/// Ascending distances with gaps drawn from `gaps`, as far as seqlen_k allows, then -1.
List make_list(std::size_t size, int32_t seqlen_k, const List& gaps, std::mt19937_64& random) {
  List list;
  int64_t distance = static_cast<int64_t>(random() % 100);
  while (list.size() < size && distance < seqlen_k) {
    list.push_back(static_cast<int32_t>(distance));
    distance += gaps[random() % gaps.size()];
  }
  list.resize(size, -1);
  return list;
}

/// Breaks a list: swaps, repetitions, and all kinds of wrong values.
void spoil(List& list, int32_t seqlen_k, std::mt19937_64& random) {
  const int32_t bad[] = {-1, INT32_MIN, INT32_MAX, seqlen_k, seqlen_k - 1, 0, 64};
  for (std::size_t i = 0; i < list.size() / 4 + 1; ++i) {
    int32_t& entry = list[random() % list.size()];
    if (random() % 2 == 0) {
      std::swap(entry, list[random() % list.size()]);
    } else {
      entry = bad[random() % std::size(bad)];
    }
  }
}

void check_size(std::size_t size, uint64_t seed) {
  std::mt19937_64 random(seed * 7919 + size);
  const List kGaps[] = {
      {1},                          // One run.
      {1, 2, 3, 5, 64, 65},         // Long clusters.
      {65, 66, 90, 100, 126, 127},  // One stretch, where rounding decides every merge.
      {64, 65, 127, 128, 129},      // Every edge.
      {1, 7, 65, 100, 300},
      {200, 1000},  // All apart.
  };
  std::vector<List> lists;
  for (const List& gaps : kGaps) {
    lists.push_back(make_list(size, /*seqlen_k=*/1 << 30, gaps, random));
  }
  check_lists(lists, /*seqlen_k=*/1 << 30, /*spare_runs=*/0);
  const auto seqlen_k = static_cast<int32_t>(std::max<std::size_t>(1, size) * 50);
  for (List& list : lists) list = make_list(size, seqlen_k, kGaps[random() % 6], random);
  check_lists(lists, seqlen_k, /*spare_runs=*/5);
  if (size == 0) return;
  for (List& list : lists) spoil(list, seqlen_k, random);
  check_lists(lists, seqlen_k, /*spare_runs=*/0);
  // The largest number of runs that fits: here max_runs() is set by length, below by entries.
  for (List& list : lists) list = make_list(size, seqlen_k, {65}, random);
  check_lists(lists, seqlen_k, /*spare_runs=*/0);
}

}  // namespace

int main() {
  for (const auto schedule : {simt::Schedule::kRoundRobin, simt::Schedule::kRandom}) {
    simt::options().schedule = schedule;
    for (const std::size_t size : {0, 1, 2, 63, 500}) check_size(size, /*seed=*/1);
    for (const std::size_t size : {1023, 1024, 1025, 5000}) check_size(size, /*seed=*/2);
  }
  simt::options() = {};
  for (uint64_t seed = 10; seed < 20; ++seed) check_size(40, seed);
  // No key at all.
  check_lists({{0, 5, -1}, {-1, -1, -1}}, /*seqlen_k=*/0, /*spare_runs=*/0);
  return test::finish();
}
