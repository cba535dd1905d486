// The tables of the CUDA backends: the only symbol of each backend's folder that others may use. A
// build without a backend's kernels has its table too, which says why they were not built. No CUDA
// header is needed to include this.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/backend.h"

/// mma.sync kernels, for every NVIDIA GPU since Ampere.
namespace minference::sm80 {

const Backend& backend();

}  // namespace minference::sm80

/// TMA and wgmma kernels, for Hopper: a copy of sm80's table, with stages replaced where these are
/// faster.
namespace minference::sm90 {

const Backend& backend();

}  // namespace minference::sm90
