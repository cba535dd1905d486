// select_rows() on emulated threads against the CPU's select_largest() and keep_mass(): any length,
// ties at every possible threshold, forced entries, and budgets (top_p).
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "cpu/top_k.h"
#include "cuda/common/select_rows.h"
#include "device_array.h"
#include "simt/simt.h"

namespace {

using namespace minference;
using test::DeviceArray;

enum class Scores { kUniform, kHeavyTail, kFewValues, kLowBits, kEqual, kZero };
constexpr Scores kAllScores[] = {Scores::kUniform, Scores::kHeavyTail, Scores::kFewValues,
                                 Scores::kLowBits, Scores::kEqual,     Scores::kZero};

/// Rounds scores of about 1 to multiples of 2^-33 that sum to less than 64 per row. Sums are then
/// exact in double and in fixed point, so both implementations have the same budget and reach it at
/// the same score.
float quantised(double score) {
  return static_cast<float>(std::ldexp(std::nearbyint(std::ldexp(score, 23)), -33));
}

std::vector<float> make_scores(Scores kind, int32_t count, std::mt19937_64& random) {
  std::uniform_real_distribution<double> unit(0, 1);
  std::vector<float> scores(static_cast<std::size_t>(count));
  for (float& score : scores) {
    const double u = unit(random);
    switch (kind) {
      case Scores::kUniform:
        score = quantised(u);
        break;
      case Scores::kHeavyTail:  // Many exponents, and zeros.
        score = quantised(std::exp(-16 * u));
        break;
      case Scores::kFewValues:
        score = quantised(static_cast<int>(u * 3) * 0.25);
        break;
      case Scores::kLowBits:  // Scores that differ only in the last digit of the radix search.
        score = quantised(1 + std::ldexp(static_cast<int>(u * 300), -23));
        break;
      case Scores::kEqual:
        score = quantised(0.125);
        break;
      case Scores::kZero:
        score = 0;
        break;
    }
  }
  return scores;
}

struct RowCase {
  int32_t num_forced;
  int32_t size;
  double share;
};

/// What the CPU selects.
std::vector<int32_t> expected_index(std::vector<float> scores, const RowCase& row) {
  std::vector<int32_t> index(static_cast<std::size_t>(row.size));
  double total = 0, forced_mass = 0;
  for (const float score : scores) total += score;
  for (int32_t i = 0; i < row.num_forced; ++i) {
    forced_mass += scores[static_cast<std::size_t>(i)];
    scores[static_cast<std::size_t>(i)] = cpu::kForcedScore;
  }
  cpu::select_largest(scores, row.size, index.data());
  if (row.share < 1) {
    std::vector<cpu::Candidate> candidates(index.size());
    cpu::keep_mass(scores, forced_mass, row.size, row.share * total, index.data(), candidates);
  }
  return index;
}

/// Each case takes `kinds` kinds of scores, rotating from `first_kind`.
struct Mix {
  std::size_t first_kind;
  std::size_t kinds;
};

void check_rows(int32_t num_scores, bool by_mass, const std::vector<RowCase>& cases, Mix mix,
                std::mt19937_64& random) {
  std::vector<DeviceArray<float>> scores;
  std::vector<DeviceArray<int32_t>> indices;
  std::vector<cuda::SelectRow> rows;
  std::vector<std::vector<int32_t>> expected;
  for (const RowCase& row : cases) {
    const auto case_idx = static_cast<std::size_t>(&row - cases.data());
    for (std::size_t k = 0; k < mix.kinds; ++k) {
      const Scores kind = kAllScores[(mix.first_kind + case_idx + k) % std::size(kAllScores)];
      const std::vector<float> host = make_scores(kind, num_scores, random);
      scores.emplace_back(host);
      indices.emplace_back(static_cast<std::size_t>(row.size));
      rows.push_back({.scores = scores.back().data(),
                      .index = indices.back().data(),
                      .num_forced = row.num_forced,
                      .size = row.size,
                      .share = row.share});
      expected.push_back(expected_index(host, row));
    }
  }
  const DeviceArray<std::byte> workspace(cuda::select_rows_bytes(rows.size(), num_scores, by_mass));
  cuda::select_rows(rows, num_scores, by_mass, workspace.span(), /*stream=*/nullptr);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const bool equal = indices[i].host() == expected[i];
    CHECK(equal, "scores", num_scores, "row", i, "forced", rows[i].num_forced, "size", rows[i].size,
          "share", rows[i].share);
  }
}

/// All kinds of rows for one length, with sizes at both ends and some between.
void check_length(int32_t num_scores, Mix mix) {
  std::mt19937_64 random(mix.first_kind * 1000 + static_cast<uint64_t>(num_scores));
  const auto up_to = [&](int32_t limit) {
    return static_cast<int32_t>(random() % (static_cast<uint64_t>(limit) + 1));
  };
  std::vector<RowCase> by_size = {{0, 0, 1}, {0, 1, 1}, {0, num_scores, 1}};
  by_size.push_back({num_scores, num_scores, 1});
  for (int i = 0; i < 2; ++i) {
    const int32_t size = up_to(num_scores);
    by_size.push_back({up_to(std::min(size, 100)), size, 1});
    by_size.push_back({size, size, 1});
  }
  check_rows(num_scores, /*by_mass=*/false, by_size, mix, random);

  std::vector<RowCase> by_mass = {{0, num_scores, 0.5}, {0, num_scores, 1}, {0, 1, 0.01}};
  for (const double share : {1e-9, 0.25, 0.9, 0.999}) {
    const int32_t size = up_to(num_scores);
    by_mass.push_back({up_to(std::min(size, 100)), size, share});
  }
  by_mass.push_back({num_scores / 2, num_scores, 0.6});
  by_mass.push_back({num_scores / 2, num_scores, 0.4});
  check_rows(num_scores, /*by_mass=*/true, by_mass, mix, random);
}

/// Scores that no estimate produces. Any selection will do if it is in bounds, ascends and fills
/// the list.
void check_wild_scores(int32_t num_scores, bool by_mass) {
  std::mt19937_64 random(7);
  std::vector<float> host(static_cast<std::size_t>(num_scores));
  for (float& score : host) {
    const float wild[] = {NAN, -NAN, INFINITY, -INFINITY, 1e38f, -1.0f, 1.0f, 0.0f};
    score = wild[random() % std::size(wild)];
  }
  const DeviceArray<float> scores(host);
  const int32_t size = num_scores / 3;
  const DeviceArray<int32_t> index(static_cast<std::size_t>(size));
  const cuda::SelectRow row{.scores = scores.data(),
                            .index = index.data(),
                            .num_forced = std::min(size, 5),
                            .size = size,
                            .share = by_mass ? 0.5 : 1};
  const DeviceArray<std::byte> workspace(cuda::select_rows_bytes(1, num_scores, by_mass));
  cuda::select_rows({&row, 1}, num_scores, by_mass, workspace.span(), /*stream=*/nullptr);
  const std::vector<int32_t> got = index.host();
  const auto end = std::find(got.begin(), got.end(), -1);
  CHECK(std::all_of(end, got.end(), [](int32_t i) { return i == -1; }), "scores", num_scores);
  CHECK(std::adjacent_find(got.begin(), end, std::greater_equal<>()) == end, "scores", num_scores);
  CHECK(by_mass || end == got.end(), "scores", num_scores);
  CHECK(end == got.begin() || (got.front() >= 0 && *(end - 1) < num_scores), "scores", num_scores);
}

}  // namespace

int main() {
  for (const int32_t num_scores : {1, 2, 31, 63, 64, 65, 1000, 2047, 5000}) {
    check_length(num_scores, {.first_kind = 0, .kinds = std::size(kAllScores)});
  }
  for (const std::size_t seed : {0, 1, 2}) {
    for (const int32_t num_scores : {16384, 16385, 40000}) {
      check_length(num_scores, {.first_kind = seed * 2, .kinds = 1});
    }
  }
  simt::options().schedule = simt::Schedule::kRandom;
  for (const std::size_t seed : {0, 1, 2, 3}) {
    simt::options().seed = seed;
    check_length(3000, {.first_kind = seed, .kinds = 2});
    check_length(20000, {.first_kind = seed, .kinds = 1});
  }
  simt::options() = {};
  {
    // The largest selection that is asked for: 16K of 4M.
    std::mt19937_64 random(11);
    check_rows(1 << 22, /*by_mass=*/false, {{100, 1 << 14, 1}}, {.first_kind = 1, .kinds = 1},
               random);
  }
  for (const bool by_mass : {false, true}) {
    for (const int32_t num_scores : {1, 3, 300, 17000}) check_wild_scores(num_scores, by_mass);
  }
  // Nothing to select from, and nothing to select.
  CHECK(cuda::select_rows_bytes(0, 100, /*by_mass=*/false) == 0);
  cuda::select_rows({}, 100, /*by_mass=*/true, {}, /*stream=*/nullptr);
  return test::finish();
}
