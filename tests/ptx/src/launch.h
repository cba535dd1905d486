// A launch, and the function that runs it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "counts.h"
#include "operation.h"
#include "types.h"

namespace ptxsim {

struct Dim3 {
  u32 x = 1, y = 1, z = 1;
  u32 count() const { return x * y * z; }
};

struct Launch {
  const Kernel* kernel = nullptr;
  Dim3 grid, block, cluster;
  u64 dynamic_shared_bytes = 0;
  const u8* parameters = nullptr;  // Function::parameter_bytes bytes, laid out as described there.
};

/// Runs all blocks to their end.
/// @throws Error if a kernel breaks a rule, and on a deadlock.
void run(const Launch& launch, Counts* counts);

}  // namespace ptxsim
