// How much of a long test's checks a run does, said by its last argument.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdlib>
#include <iostream>
#include <string_view>

namespace minference::test {

enum class Extent {
  kAll,
  kFew,    // A fourth of the cases where there are most.
  kBrief,  // A twelfth: seconds, for many runs or under sanitizers.
};

/// Whether a run checks case number `i` of many. Of each group of cases it is one, in the next
/// group the one a place earlier: cases come from nested loops, of which a plain step would find
/// the same turns again and again, one dtype for example and never the other.
inline bool is_checked(Extent extent, std::size_t i) {
  const std::size_t step = extent == Extent::kAll ? 1 : extent == Extent::kFew ? 4 : 12;
  return (i + i / step) % step == 0;
}

/// The extent that argument `index` names; all, if there is no such argument. Ends the process if
/// it names none.
inline Extent extent_of(int argc, char** argv, int index) {
  const std::string_view name = argc > index ? argv[index] : "all";
  if (name == "all") return Extent::kAll;
  if (name == "few") return Extent::kFew;
  if (name == "brief") return Extent::kBrief;
  std::cerr << "expected all, few or brief, got " << name << '\n';
  std::exit(2);
}

}  // namespace minference::test
