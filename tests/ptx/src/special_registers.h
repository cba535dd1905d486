// Special registers (section 10) by name.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string_view>

#include "ptx.h"

namespace ptxsim {

struct SpecialRegister {
  Source source;
  u8 bytes;
};

/// Looks up "%tid.x" and the like; empty if the name is not known.
std::optional<SpecialRegister> find_special_register(std::string_view name);

/// Whether the register changes while a kernel runs: %clock, %globaltimer and their halves.
bool is_clock(std::string_view name);

}  // namespace ptxsim
