// Errors inside the library: thrown as Error, turned into a status at the C boundary (api/).
// Two families: MINF_CHECK_ARG for what the caller got wrong (api/, and where entries of untrusted
// index lists are read), MINF_ASSERT for our bugs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <sstream>
#include <string>
#include <utility>

#include "minference/minference.h"

namespace minference {

class Error : public std::exception {
 public:
  Error(minf_status status, std::string message) : status_(status), message_(std::move(message)) {}
  minf_status status() const { return status_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  minf_status status_;
  std::string message_;
};

namespace detail {

template <typename... Args>
std::string concat(const Args&... args) {
  std::ostringstream text;
  (text << ... << args);
  return std::move(text).str();
}

// Out of line, so that a check costs its caller a compare and a call.

[[noreturn, gnu::noinline]] inline void throw_error(minf_status status, std::string message) {
  throw Error(status, std::move(message));
}

[[noreturn, gnu::noinline]] inline void throw_assert(const char* file, int line,
                                                     const char* condition) {
  throw Error(MINF_ERROR_INTERNAL, concat("internal error (please report): ", condition,
                                          " does not hold at ", file, ":", line));
}

}  // namespace detail
}  // namespace minference

/// The caller passed something wrong. Say which argument, what was expected, and what came.
#define MINF_CHECK_ARG(condition, ...)                                              \
  do {                                                                              \
    if (!(condition)) {                                                             \
      ::minference::detail::throw_error(MINF_ERROR_INVALID_ARGUMENT,                \
                                        ::minference::detail::concat(__VA_ARGS__)); \
    }                                                                               \
  } while (false)

/// A bug of this library, never of its caller.
#define MINF_ASSERT(condition)                                            \
  do {                                                                    \
    if (!(condition)) {                                                   \
      ::minference::detail::throw_assert(__FILE__, __LINE__, #condition); \
    }                                                                     \
  } while (false)
