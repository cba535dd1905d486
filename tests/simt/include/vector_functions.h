// make_int2(), make_float4(), ...: constructors of CUDA's vector types.
// SPDX-License-Identifier: Apache-2.0
#if !defined(__VECTOR_FUNCTIONS_H__)
#define __VECTOR_FUNCTIONS_H__

#include "vector_types.h"

#define SIMT_MAKE_VECTOR(name, scalar)                                                 \
  constexpr name##1 make_##name##1(scalar x) { return {x}; }                           \
  constexpr name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }              \
  constexpr name##3 make_##name##3(scalar x, scalar y, scalar z) { return {x, y, z}; } \
  constexpr name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }

SIMT_MAKE_VECTOR(char, signed char)
SIMT_MAKE_VECTOR(uchar, unsigned char)
SIMT_MAKE_VECTOR(short, short)
SIMT_MAKE_VECTOR(ushort, unsigned short)
SIMT_MAKE_VECTOR(int, int)
SIMT_MAKE_VECTOR(uint, unsigned int)
SIMT_MAKE_VECTOR(long, long)
SIMT_MAKE_VECTOR(ulong, unsigned long)
SIMT_MAKE_VECTOR(longlong, long long)
SIMT_MAKE_VECTOR(ulonglong, unsigned long long)
SIMT_MAKE_VECTOR(float, float)
SIMT_MAKE_VECTOR(double, double)

#undef SIMT_MAKE_VECTOR

#endif
