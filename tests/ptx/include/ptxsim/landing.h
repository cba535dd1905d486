// When asynchronous work is done.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace ptxsim {

/// When bulk copies, cp.async and wgmma land: at once; when something waits for them or nothing
/// else can go on; or at random, by seed.
enum class Landing : std::uint8_t { kAtOnce, kLate, kRandom };

}  // namespace ptxsim
