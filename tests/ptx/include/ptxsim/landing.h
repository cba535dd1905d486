// When work that completes later is done.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace ptxsim {

/// Of bulk copies, cp.async and wgmma: at once, when nobody can go on without (or waits for it), or
/// at random by seed.
enum class Landing : std::uint8_t { kAtOnce, kLate, kRandom };

}  // namespace ptxsim
