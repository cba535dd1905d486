// What nvcc embeds in an object file: a list of machine code and PTX for several architectures.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace ptxsim::runtime {

/// The PTX for the newest architecture up to sm_90, passed through PTXSIM_FILTER if set.
/// @throws Error if there is none, or it is compressed.
std::string ptx_of(const void* fat_binary);

}  // namespace ptxsim::runtime
