// The qualifiers of CUDA C++, which mean nothing to a host compiler. There is no __shared__: shared
// memory comes from simt::dynamic_shared(), which lets every byte of it be checked.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#if !defined(__HOST_DEFINES_H__)  // A CUDA toolkit's header defines them as well.
#define __HOST_DEFINES_H__
#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __builtin_align__(bytes) __align__(bytes)
#define __device_builtin__
#define __cudart_builtin__
#define CUDARTAPI
#endif
