// Short names for the integers that registers hold, and the error type.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <stdexcept>

namespace ptxsim {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using s8 = int8_t;
using s16 = int16_t;
using s32 = int32_t;
using s64 = int64_t;

/// PTX that is not understood, or a kernel that breaks a rule. The text says what and where.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

constexpr u32 kWarpSize = 32;
constexpr u32 kAllLanes = ~0u;

}  // namespace ptxsim
