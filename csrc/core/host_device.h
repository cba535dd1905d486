// Marks integer code that every backend shares: it compiles for the host and, under nvcc, for the
// device.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#if defined(__CUDACC__)
#define MINF_HOST_DEVICE __host__ __device__
#else
#define MINF_HOST_DEVICE
#endif
