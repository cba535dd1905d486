// Checks for registers that were never written, by the lanes of each that hold a value
// (Warp::defined).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "state.h"

namespace ptxsim {

/// @throws Error that names the lanes in which a register of `op` was never written.
[[noreturn]] void fail_undefined(const Warp& warp, u32 lanes);
[[noreturn]] void fail_undefined_guard(const Warp& warp, u32 lanes);

/// The lanes in which selp takes an undefined value. The value not taken may be undefined; the
/// selector may not.
inline u32 undefined_selection(const Warp& warp, const Op& op, u32 lanes) {
  const u32 unknown = lanes & ~warp.defined[op.selector.number];
  if (unknown != 0) fail_undefined(warp, unknown);
  const u32 holds = warp.predicate(op.selector);
  const u32 takes_first = op.selector_negated ? ~holds : holds;
  return lanes &
         ((takes_first & ~warp.defined[op.reads[0]]) | (~takes_first & ~warp.defined[op.reads[1]]));
}

/// Checks what `lanes` read, and records what they write.
inline void check_and_define(Warp& warp, const Op& op, u32 lanes) {
  u32 undefined = 0;
  for (const u32 reg : op.reads) undefined |= lanes & ~warp.defined[reg];
  if (undefined != 0 && op.selects) undefined = undefined_selection(warp, op, lanes);
  if (undefined == 0 || op.is_product) {
    for (const u32 reg : op.writes) warp.defined[reg] |= lanes;
    return;
  }
  if (!op.copies_undefined) fail_undefined(warp, undefined);
  for (const u32 reg : op.writes) {
    warp.defined[reg] = (warp.defined[reg] & ~undefined) | (lanes & ~undefined);
  }
}

inline void check_guard(const Warp& warp, const Op& op, u32 lanes) {
  const u32 undefined = lanes & ~warp.defined[op.guard.number];
  if (undefined != 0) fail_undefined_guard(warp, undefined);
}

/// Checks an operand that the schedule itself reads before the instruction executes.
inline void check_operand(const Warp& warp, Reg reg, u32 lanes) {
  if (warp.defined.empty()) return;
  const u32 undefined = lanes & ~warp.defined[reg.number];
  if (undefined != 0) fail_undefined(warp, undefined);
}

/// The checks of Options::check for any instruction.
inline void before_execution(Warp& warp, const Op& op, u32 lanes) {
  if (warp.defined.empty()) return;
  check_registers(warp, op);
  check_and_define(warp, op, lanes);
}

}  // namespace ptxsim
