// The one tool of the C++ tests: a check that counts, and prints where it failed and with which
// values.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <iostream>

namespace minference::test {

inline int64_t num_checks = 0;
inline int64_t num_failed = 0;

/// main() returns its result: 0 if checks were made and all held.
inline int finish() {
  std::cout << num_checks << " checks, " << num_failed << " failed\n";
  return num_checks > 0 && num_failed == 0 ? 0 : 1;
}

/// Prints what failed, with the values given to the check. The number of lines is limited, so that
/// a broken loop does not fill a disk.
template <typename... Values>
void report(const char* file, int line, const char* condition, const Values&... values) {
  constexpr int64_t kMaxReports = 20;
  if (++num_failed > kMaxReports) return;
  std::cout << file << ":" << line << ": does not hold: " << condition;
  ((std::cout << " " << values), ...);
  std::cout << '\n' << std::flush;
}

}  // namespace minference::test

/// CHECK(condition) or CHECK(condition, "name", value, ...).
#define CHECK(condition, ...)                                                              \
  do {                                                                                     \
    ++minference::test::num_checks;                                                        \
    if (!(condition)) {                                                                    \
      minference::test::report(__FILE__, __LINE__, #condition __VA_OPT__(, ) __VA_ARGS__); \
    }                                                                                      \
  } while (false)
