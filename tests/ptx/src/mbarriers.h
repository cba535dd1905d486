// mbarrier objects (section 9.7.13.15): a word in shared memory, and what is known of it beside.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>

#include "types.h"

namespace ptxsim {

struct Warp;

/// Who initialised an mbarrier, and how many fences that lane had executed then: others of the
/// cluster and the async proxy may use it only behind one.
struct MbarrierInit {
  u32 warp = 0, lane = 0;
  u32 fences = 0;
};
struct Mbarriers {
  std::map<u64, MbarrierInit> initialized;  // By offset in shared memory.
};

}  // namespace ptxsim
