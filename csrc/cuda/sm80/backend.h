// The sm80 backend's table: mma.sync kernels, for every NVIDIA GPU since Ampere. The one symbol of
// this folder that others may use; a build without nvcc has it too, and it says that it was not
// built. No CUDA header is needed to include this.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/backend.h"

namespace minference::sm80 {

const Backend& backend();

}  // namespace minference::sm80
