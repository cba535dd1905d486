// Patterns, the public functions.
// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>

#include "api/status.h"
#include "core/check.h"
#include "core/pattern_info.h"
#include "minference/minference.h"

using namespace minference;

minf_pattern minf_pattern_default(int32_t kind) { return default_pattern(kind); }

minf_status minf_pattern_from_numbers(const double* numbers, int64_t num_numbers,
                                      minf_pattern* pattern) {
  return api::guarded([&] {
    MINF_CHECK_ARG(numbers != nullptr, "numbers: expected an array, got null");
    MINF_CHECK_ARG(num_numbers >= 1, "num_numbers: expected >= 1, got ", num_numbers);
    MINF_CHECK_ARG(pattern != nullptr, "pattern: expected where to store the result, got null");
    *pattern = pattern_from_numbers({numbers, static_cast<std::size_t>(num_numbers)});
  });
}
