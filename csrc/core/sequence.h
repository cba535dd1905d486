// The sequences of a call: how long each is, and where its rows and its keys begin in the tensors.
//
// Kernels and stages ask Sequences for the one they work on and read nothing else about where it
// lies. So far there is one producer, Shape::sequences(): a rectangle, whose sequences are equally
// long and lie one after the other along dimension 0.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "core/pattern.h"

namespace minference {

struct Sequence {
  int32_t index = 0;  // Of the call's sequences: along dimension 0 of its tensors.
  Lengths lengths;
  int64_t first_row = 0;  // Row of q, out and lse at which its queries begin.
  int64_t first_key = 0;  // Row of k and v at which its keys begin.
};

struct Sequences {
  int32_t count = 0;
  Lengths max;  // Of the longest: what grids and work memory are made for.

  MINF_HOST_DEVICE Sequence at(int32_t index) const { return {.index = index, .lengths = max}; }
};

}  // namespace minference
