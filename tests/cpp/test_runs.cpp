// plan_runs() against the literal definition of a run: merge spans, then round, near to far.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <random>
#include <set>
#include <vector>

#include "check.h"
#include "core/runs.h"
#include "minference/minference.h"

namespace {

using minference::kBlock;
using minference::Run;

/// Step 1: a span [d, d + 64) per distance; touching or overlapping spans are merged. Step 2: each
/// far end is rounded up to whole blocks; a run that then reaches the next one absorbs it and is
/// rounded again.
std::vector<Run> runs_by_definition(const std::vector<int32_t>& distances) {
  std::vector<Run> spans;
  for (const int32_t d : distances) {
    if (!spans.empty() && d <= spans.back().hi) {
      spans.back().hi = std::max(spans.back().hi, d + kBlock);
    } else {
      spans.push_back({d, d + kBlock});
    }
  }
  const auto rounded = [](Run run) {
    while ((run.hi - run.lo) % kBlock != 0) ++run.hi;
    return run;
  };
  std::vector<Run> runs;
  for (const Run& span : spans) {
    if (!runs.empty() && span.lo <= runs.back().hi) {
      runs.back() = rounded({runs.back().lo, std::max(runs.back().hi, span.hi)});
    } else {
      runs.push_back(rounded(span));
    }
  }
  return runs;
}

void check_distances(const std::vector<int32_t>& distances, int64_t seqlen_k) {
  const auto expected = runs_by_definition(distances);
  const int64_t bound = minference::max_runs(static_cast<int64_t>(distances.size()), seqlen_k);
  CHECK(static_cast<int64_t>(expected.size()) <= bound, "runs", expected.size(), "bound", bound);

  // Exactly the promised length, so that a sanitizer sees a write past the bound.
  std::vector<Run> runs(static_cast<std::size_t>(bound));
  std::vector<int32_t> filled = distances;
  filled.insert(filled.end(), 3, -1);
  const int32_t count =
      minference::plan_runs(filled.data(), static_cast<int64_t>(filled.size()), runs.data());
  const bool equal =
      count == static_cast<int32_t>(expected.size()) &&
      std::equal(expected.begin(), expected.end(), runs.begin(),
                 [](const Run& a, const Run& b) { return a.lo == b.lo && a.hi == b.hi; });
  CHECK(equal, "distances", distances.size(), "first", distances.empty() ? -1 : distances[0]);
}

/// All subsets of distances around the multiples of a block, where merging and rounding change.
void test_all_subsets() {
  const std::vector<int32_t> places = {0,   1,   2,   62,  63,  64,  65,  126, 127,
                                       128, 129, 190, 191, 192, 193, 255, 256, 257};
  for (uint32_t subset = 0; subset < (1U << places.size()); ++subset) {
    std::vector<int32_t> distances;
    for (std::size_t i = 0; i < places.size(); ++i) {
      if (subset >> i & 1) distances.push_back(places[i]);
    }
    check_distances(distances, 258);
  }
}

void test_random_sets() {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    const int32_t seqlen_k = std::uniform_int_distribution<int32_t>(1, 5000)(random);
    const int32_t count =
        std::uniform_int_distribution<int32_t>(0, std::min(seqlen_k, 120))(random);
    std::set<int32_t> distances;
    while (static_cast<int32_t>(distances.size()) < count) {
      distances.insert(std::uniform_int_distribution<int32_t>(0, seqlen_k - 1)(random));
    }
    check_distances({distances.begin(), distances.end()}, seqlen_k);
  }
}

/// Distances 65 apart never merge: the bound is reached.
void test_bound_is_tight() {
  for (int32_t seqlen_k = 0; seqlen_k < 1000; ++seqlen_k) {
    std::vector<int32_t> distances;
    for (int32_t d = 0; d < seqlen_k; d += kBlock + 1) distances.push_back(d);
    const auto count = static_cast<int64_t>(distances.size());
    CHECK(minference::max_runs(seqlen_k, seqlen_k) == count, "seqlen_k", seqlen_k);
    CHECK(static_cast<int64_t>(runs_by_definition(distances).size()) == count);
    check_distances(distances, seqlen_k);
  }
}

void test_public_bound() {
  CHECK(minf_max_runs(6096, 131072) == 2017);
  CHECK(minf_max_runs(10, 131072) == 10);
  CHECK(minf_max_runs(-1, 100) == 0);
  CHECK(minf_max_runs(100, -5) == 0);
  CHECK(minf_max_runs(INT64_MAX, INT64_MAX) == minf_max_runs(INT64_MAX, int64_t{1} << 30));
}

}  // namespace

int main() {
  test_all_subsets();
  test_random_sets();
  test_bound_is_tight();
  test_public_bound();
  return minference::test::finish();
}
