// The sm90 backend's table: TMA and wgmma kernels, for Hopper. A copy of sm80's in which stages are
// replaced that gain by it. The one symbol of this folder that others may use; a build without the
// kernels has it too, and it says that they were not built. No CUDA header is needed to include it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/backend.h"

namespace minference::sm90 {

const Backend& backend();

}  // namespace minference::sm90
