// Division that rounds up.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <type_traits>

namespace minference {

/// Of an integer, 0 or more, by one of 1 or more; both in the type of the first.
template <typename Integer>
constexpr Integer ceil_div(Integer value, std::type_identity_t<Integer> divisor) {
  return (value + divisor - 1) / divisor;
}

}  // namespace minference
