// Shared by the interpreter's own tests: a check that counts.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <iostream>
#include <string>

#include "types.h"

namespace ptxsim::test {

inline int num_checks = 0;
inline int num_failed = 0;

template <typename... Values>
void check(bool holds, const char* file, int line, const char* condition, const Values&... values) {
  ++num_checks;
  constexpr int kMaxReports = 20;
  if (holds || ++num_failed > kMaxReports) return;
  std::cout << file << ":" << line << ": does not hold: " << condition;
  ((std::cout << " [" << values << "]"), ...);
  std::cout << '\n' << std::flush;
}

/// main() returns its result.
inline int finish() {
  std::cout << num_checks << " checks, " << num_failed << " failed\n";
  return num_checks > 0 && num_failed == 0 ? 0 : 1;
}

/// The text of the error that `body` throws; empty if it throws none.
inline std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline bool contains(const std::string& text, std::initializer_list<const char*> parts) {
  return std::all_of(parts.begin(), parts.end(),
                     [&](const char* part) { return text.find(part) != std::string::npos; });
}

}  // namespace ptxsim::test

#define CHECK(condition, ...) \
  ptxsim::test::check((condition), __FILE__, __LINE__, #condition __VA_OPT__(, ) __VA_ARGS__)

/// Checks that `body` throws an Error whose text has all the parts.
#define CHECK_ERROR(body, ...)                                                           \
  do {                                                                                   \
    const std::string text = ptxsim::test::error_of([&] { body; });                      \
    ptxsim::test::check(ptxsim::test::contains(text, {__VA_ARGS__}), __FILE__, __LINE__, \
                        #body " is the error " #__VA_ARGS__, text);                      \
  } while (false)
