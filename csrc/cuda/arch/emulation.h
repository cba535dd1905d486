// Where the words of CUDA C++ come from: nvcc's own, or, with MINF_SIMT defined, the emulated
// threads of tests/simt. The only include of arch/ that knows there are two.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#if defined(MINF_SIMT)
#include "simt/device.h"
#else
#include <cuda_runtime.h>
#endif
