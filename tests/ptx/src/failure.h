// Parts of error texts.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "types.h"

namespace ptxsim {

struct Block;
struct Op;

std::string lanes_text(u32 lanes);           // "0-15, 17"
std::string instruction_text(const Op& op);  // "PTX line 12: add.s32 ..."
std::string block_text(const Block& block);  // "block (0, 0, 0)"

}  // namespace ptxsim
