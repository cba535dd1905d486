// How many of a long test's cases a run checks, as its last argument says.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdlib>
#include <iostream>
#include <string_view>

namespace minference::test {

enum class Extent {
  kAll,
  kFew,    // A fourth of the cases of the longest tests.
  kBrief,  // A twelfth: seconds, for many runs or under sanitizers.
};

/// Whether a run checks case number `i` of many: one in each group of cases, at a place that moves
/// back by one from group to group. Cases come from nested loops; a fixed step would pick the same
/// iterations again and again, for example always the same dtype.
inline bool is_checked(Extent extent, std::size_t i) {
  const std::size_t step = extent == Extent::kAll ? 1 : extent == Extent::kFew ? 4 : 12;
  return (i + i / step) % step == 0;
}

/// The extent that argument `index` names; kAll if there is no such argument. Ends the process if
/// the name is unknown.
inline Extent extent_of(int argc, char** argv, int index) {
  const std::string_view name = argc > index ? argv[index] : "all";
  if (name == "all") return Extent::kAll;
  if (name == "few") return Extent::kFew;
  if (name == "brief") return Extent::kBrief;
  std::cerr << "expected all, few or brief, got " << name << '\n';
  std::exit(2);
}

}  // namespace minference::test
