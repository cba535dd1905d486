// The C++ tests' one tool: a check that counts what does not hold and says where.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdio>

namespace test {

inline int num_checks = 0;
inline int num_failed = 0;

/// To be returned from main(): 1 if a check failed, or if none was made.
inline int result() {
  std::printf("%d checks, %d failed\n", num_checks, num_failed);
  return num_failed == 0 && num_checks > 0 ? 0 : 1;
}

}  // namespace test

#define CHECK(condition)                                                         \
  do {                                                                           \
    ++test::num_checks;                                                          \
    if (!(condition)) {                                                          \
      ++test::num_failed;                                                        \
      std::printf("%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
    }                                                                            \
  } while (false)
