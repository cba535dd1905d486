// The boxes that sm90's kernels ask TMA for.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

namespace judges {

/// Values of a tma::PanelLayout. One side includes tests/simt's headers, the other the toolkit's.
struct Panel {
  int dims;
  unsigned swizzle;
  int rows;
};

std::vector<Panel> panels();

}  // namespace judges
