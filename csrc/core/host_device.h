// For integer code that every backend shares: the mark that compiles it for the host and, under
// nvcc, for the device; and division that rounds up.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <type_traits>

#if defined(__CUDACC__)
#define MINF_HOST_DEVICE __host__ __device__
#else
#define MINF_HOST_DEVICE
#endif

namespace minference {

/// value / divisor, rounded up, in the type of `value`. value >= 0, divisor >= 1.
template <typename Integer>
constexpr Integer ceil_div(Integer value, std::type_identity_t<Integer> divisor) {
  return (value + divisor - 1) / divisor;
}

}  // namespace minference
