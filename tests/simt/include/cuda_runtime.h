// What a CUDA source expects of this header: the runtime's host API and the built-ins of CUDA C++.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda_runtime_api.h"
#include "simt/device.h"
