// CUDA's vector types with CUDA's sizes and alignments: int2, float4, ..., and dim3.
// Shares its include guard with CUDA's header of the same name, so that headers of a CUDA toolkit
// included after it use these types.
// SPDX-License-Identifier: Apache-2.0
#if !defined(__VECTOR_TYPES_H__)
#define __VECTOR_TYPES_H__

#define SIMT_VECTOR_TYPES(name, scalar, align2, align4) \
  struct name##1 { scalar x; };                         \
  struct alignas(align2) name##2 { scalar x, y; };      \
  struct name##3 { scalar x, y, z; };                   \
  struct alignas(align4) name##4 { scalar x, y, z, w; };

SIMT_VECTOR_TYPES(char, signed char, 2, 4)
SIMT_VECTOR_TYPES(uchar, unsigned char, 2, 4)
SIMT_VECTOR_TYPES(short, short, 4, 8)
SIMT_VECTOR_TYPES(ushort, unsigned short, 4, 8)
SIMT_VECTOR_TYPES(int, int, 8, 16)
SIMT_VECTOR_TYPES(uint, unsigned int, 8, 16)
SIMT_VECTOR_TYPES(long, long, 16, 16)
SIMT_VECTOR_TYPES(ulong, unsigned long, 16, 16)
SIMT_VECTOR_TYPES(longlong, long long, 16, 16)
SIMT_VECTOR_TYPES(ulonglong, unsigned long long, 16, 16)
SIMT_VECTOR_TYPES(float, float, 8, 16)
SIMT_VECTOR_TYPES(double, double, 16, 16)

#undef SIMT_VECTOR_TYPES

// Four 8-byte elements, with the alignment in the name.
#define SIMT_VECTOR4_TYPES(name, scalar)                 \
  struct alignas(16) name##4_16a { scalar x, y, z, w; }; \
  struct alignas(32) name##4_32a { scalar x, y, z, w; };

SIMT_VECTOR4_TYPES(long, long)
SIMT_VECTOR4_TYPES(ulong, unsigned long)
SIMT_VECTOR4_TYPES(longlong, long long)
SIMT_VECTOR4_TYPES(ulonglong, unsigned long long)
SIMT_VECTOR4_TYPES(double, double)

#undef SIMT_VECTOR4_TYPES

// Headers of a CUDA toolkit use these.
#define __NV_SILENCE_DEPRECATION_BEGIN
#define __NV_SILENCE_DEPRECATION_END

struct dim3 {
  unsigned int x, y, z;
  constexpr dim3(unsigned int vx = 1, unsigned int vy = 1, unsigned int vz = 1)
      : x(vx), y(vy), z(vz) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return uint3{x, y, z}; }
};

#endif
