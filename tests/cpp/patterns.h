// Patterns for tests of the C surface. Some of these tests include the library's internal headers,
// and so cannot include the C++ surface's.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "minference/minference.h"

namespace minference::test {

inline minf_pattern dense() { return minf_pattern_default(MINF_DENSE); }

inline minf_pattern a_shape(int32_t sink, int32_t window) {
  minf_pattern pattern = minf_pattern_default(MINF_A_SHAPE);
  pattern.as.a_shape = {sink, window};
  return pattern;
}

inline minf_pattern tri_shape(int32_t sink, int32_t window, int32_t last) {
  minf_pattern pattern = minf_pattern_default(MINF_TRI_SHAPE);
  pattern.as.tri_shape = {sink, window, last};
  return pattern;
}

inline minf_pattern vertical_slash(int32_t vertical_size, int32_t slash_size) {
  minf_pattern pattern = minf_pattern_default(MINF_VERTICAL_SLASH);
  pattern.as.vertical_slash.vertical_size = vertical_size;
  pattern.as.vertical_slash.slash_size = slash_size;
  return pattern;
}

inline minf_pattern block_sparse(int32_t top_k) {
  minf_pattern pattern = minf_pattern_default(MINF_BLOCK_SPARSE);
  pattern.as.block_sparse.top_k = top_k;
  return pattern;
}

}  // namespace minference::test
