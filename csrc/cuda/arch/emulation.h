// Where the words of CUDA C++ come from: nvcc's own headers, or, with MINF_SIMT defined, the
// emulated threads of tests/simt. No other header of arch/ includes either. <cuda.h> gives types
// only, CUtensorMap among them; nothing links against the driver.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#if defined(MINF_SIMT)
#include "simt/device.h"
#include "simt/hopper.h"
#else
#include <cuda_runtime.h>
#endif
