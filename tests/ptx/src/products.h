// wgmma under way (section 9.7.15): between its issue and the wait for its group, its registers and
// its operands in shared memory are not to be touched.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <vector>

#include "types.h"

namespace ptxsim {

struct Warp;
struct Op;

struct Products {
  u32 open_group = 0;
};

/// Before any instruction, where Options::check is set: fails if it touches a register of a product
/// that was not waited for; remembers what it writes.
void check_registers(Warp& warp, const Op& op);
/// At exit: fails if a product was not waited for.
void check_exit(Warp& warp);

}  // namespace ptxsim
