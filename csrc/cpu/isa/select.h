// Which instruction set's kernels serve a call.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/isa/kernels.h"

namespace minference::cpu {

/// The forced instruction set, else the best that this machine has.
const IsaKernels& selected_isa();

inline const KernelTable& kernels_for(DType dtype) {
  return *selected_isa().tables[static_cast<int>(dtype)];
}

}  // namespace minference::cpu
