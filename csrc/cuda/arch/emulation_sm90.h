// emulation.h for the headers of Hopper's instructions: where CUtensorMap and the emulated
// instructions come from. <cuda.h> gives types only; nothing links against the driver.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include "cuda/arch/emulation.h"

#if defined(MINF_SIMT)
#include "simt/hopper.h"
#endif
