// Error throwing, out of line.
// SPDX-License-Identifier: Apache-2.0
#include "core/check.h"

namespace minference::detail {

void throw_error(minf_status status, std::string message) {
  throw Error(status, std::move(message));
}

void throw_assert(const char* file, int line, const char* condition) {
  throw Error(MINF_ERROR_INTERNAL, concat("internal error (please report): ", condition,
                                          " does not hold at ", file, ":", line));
}

}  // namespace minference::detail
