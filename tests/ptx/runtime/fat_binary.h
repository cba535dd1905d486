// What nvcc puts into an object file: a list of machine code and PTX for several architectures.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace ptxsim::runtime {

/// The PTX for the newest architecture that is not beyond sm_90; what PTXSIM_FILTER makes of it, if
/// set.
/// @throws Error if there is none, or it is compressed.
std::string ptx_of(const void* fat_binary);

}  // namespace ptxsim::runtime
