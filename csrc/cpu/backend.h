// The CPU backend's table: the one symbol of this folder that others may use.
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
  const char* unavailable_reason;  // Empty where this machine has it.
  bool selected;                   // Serves the next call.
};

/// Best first. Index i of the returned count.
int isa_count();
IsaInfo isa_info(int isa);

/// Forces an instruction set for the process; empty restores the best available one.
/// @throws Error{kUnsupported} where this machine lacks it, {kInvalidArgument} for an unknown name.
void force_isa(std::string_view name);

}  // namespace minference::cpu
