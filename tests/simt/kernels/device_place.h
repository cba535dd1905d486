// Puts the test tensors of tests/cpp into emulated device memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "simt/simt.h"
#include "test_tensor.h"

namespace minference::test {

inline constexpr Place kDevicePlace = {
    .device_type = MINF_DEVICE_CUDA,
    .allocate = [](std::size_t bytes) { return simt::device_malloc(bytes); },
    .release = [](void* data) { simt::device_free(data); },
    .written = [](void* data, std::size_t bytes) { simt::mark_initialized(data, bytes); }};

}  // namespace minference::test
