// Selection of the largest scores: a radix search for the threshold, then an ordered compaction, so
// that indices come out ascending without a sort. Ties go to the smaller index.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

namespace minference::cpu {

/// The score of entries that must be kept.
inline constexpr float kForcedScore = __builtin_inff();

/// A score and its index, for mass budgets.
struct Candidate {
  float score;
  int32_t index;
};

/// Writes the indices of the `count` largest scores, ascending. 0 <= count <= scores.size(). Scores
/// are not NaN.
void select_largest(std::span<const float> scores, int32_t count, int32_t* index);

/// Keeps those of `count` selected indices that have the largest scores, until they sum to
/// `budget`; writes -1 over the rest. Entries of kForcedScore come first, and add `forced_mass` to
/// the sum. Scores are not negative. `candidates` is scratch memory for `count` entries.
void keep_mass(std::span<const float> scores, double forced_mass, int32_t count, double budget,
               int32_t* index, std::span<Candidate> candidates);

}  // namespace minference::cpu
