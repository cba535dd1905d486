// What the rest of the library may use of this folder: the backend's table, and the choice of an
// instruction set.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

#include "core/backend.h"

namespace minference::cpu {

const Backend& backend();

/// One instruction set the backend was built for.
struct IsaInfo {
  const char* name;
  const char* unavailable_reason;  // Empty if this machine has it.
  bool selected;                   // Serves the next call.
};

/// The instruction sets of this build, best first: `isa` is an index in [0, isa_count()).
int isa_count();
IsaInfo isa_info(int isa);

/// Forces an instruction set for the process; empty restores the best available one.
/// @throws Error{MINF_ERROR_UNSUPPORTED} if this machine lacks it,
/// Error{MINF_ERROR_INVALID_ARGUMENT} if the name is unknown.
void force_isa(std::string_view name);

}  // namespace minference::cpu
