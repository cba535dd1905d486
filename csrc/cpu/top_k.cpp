// Radix selection: see top_k.h.
// SPDX-License-Identifier: Apache-2.0
#include "cpu/top_k.h"

#include <algorithm>
#include <bit>

namespace minference::cpu {
namespace {

/// Unsigned integers in the order of the floats.
uint32_t order_key(float score) {
  const auto bits = std::bit_cast<uint32_t>(score);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

/// The key of the k-th largest score, and how many scores with just this key are among the k.
struct Threshold {
  uint32_t key;
  int32_t ties;
};

Threshold find_threshold(std::span<const float> scores, int32_t k) {
  // 11 + 11 + 10 bits: histograms of 8 KB stay in L1.
  constexpr int kShift[] = {21, 10, 0};
  constexpr int kBits[] = {11, 11, 10};
  uint32_t prefix = 0;
  uint32_t known = 0;  // Mask of the bits of `prefix` that are settled.
  int32_t left = k;
  for (int pass = 0; pass < 3; ++pass) {
    int32_t histogram[2048] = {};
    const uint32_t digit_mask = (1u << kBits[pass]) - 1;
    for (const float score : scores) {
      const uint32_t key = order_key(score);
      if ((key & known) == prefix) ++histogram[key >> kShift[pass] & digit_mask];
    }
    uint32_t digit = digit_mask;
    while (histogram[digit] < left) left -= histogram[digit--];
    prefix |= digit << kShift[pass];
    known |= digit_mask << kShift[pass];
  }
  return {prefix, left};
}

}  // namespace

void select_largest(std::span<const float> scores, int32_t count, int32_t* index) {
  if (count == 0) return;
  Threshold threshold = find_threshold(scores, count);
  int32_t selected = 0;
  for (int32_t i = 0; selected < count; ++i) {
    const uint32_t key = order_key(scores[static_cast<std::size_t>(i)]);
    if (key > threshold.key || (key == threshold.key && threshold.ties-- > 0))
      index[selected++] = i;
  }
}

void keep_mass(std::span<const float> scores, double forced_mass, int32_t count, double budget,
               int32_t* index, std::span<Candidate> candidates) {
  for (int32_t i = 0; i < count; ++i) {
    candidates[static_cast<std::size_t>(i)] = {scores[static_cast<std::size_t>(index[i])],
                                               index[i]};
  }
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.index < b.index;
  });
  auto kept = candidates.begin();
  while (kept != candidates.end() && kept->score == kForcedScore) ++kept;
  for (double sum = forced_mass; kept != candidates.end() && sum < budget; ++kept) {
    sum += kept->score;
  }
  std::sort(candidates.begin(), kept,
            [](const Candidate& a, const Candidate& b) { return a.index < b.index; });
  std::transform(candidates.begin(), kept, index, [](const Candidate& c) { return c.index; });
  std::fill(index + (kept - candidates.begin()), index + count, -1);
}

}  // namespace minference::cpu
