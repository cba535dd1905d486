// What kernels did, for coverage and counts. PTXSIM_REPORT names a folder: each process writes a
// JSON file there when it ends, and each module's PTX once.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "counts.h"
#include "modules.h"

namespace ptxsim::runtime {

void report_launch(const RegisteredKernel& registered, const Kernel& kernel, const Counts& counts);

}  // namespace ptxsim::runtime
