// SPDX-License-Identifier: Apache-2.0
#include "undefined.h"

namespace ptxsim {

void fail_undefined(const Warp& warp, u32 lanes) {
  fail(warp, "reads a register that was never written", lanes);
}

void fail_undefined_guard(const Warp& warp, u32 lanes) {
  fail(warp, "its guard was never written", lanes);
}

}  // namespace ptxsim
