// What a CUDA source gets from this name: the runtime's host interface and the words of CUDA C++.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda_runtime_api.h"
#include "simt/device.h"
