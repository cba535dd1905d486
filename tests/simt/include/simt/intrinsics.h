// CUDA's arithmetic intrinsics, in plain C++. Approximate ones (__expf, rsqrtf, ...) are as
// accurate as the host's, which is more than the hardware promises.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) {
  return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x));
}
inline unsigned long long __brevll(unsigned long long x) {
  unsigned long long reversed = 0;
  for (int bit = 0; bit < 64; ++bit) reversed |= ((x >> bit) & 1) << (63 - bit);
  return reversed;
}
inline unsigned __brev(unsigned x) { return static_cast<unsigned>(__brevll(x) >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32);
}
inline int __mulhi(int a, int b) { return static_cast<int>((static_cast<int64_t>(a) * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  const uint64_t both = (static_cast<uint64_t>(high) << 32) | low;
  return static_cast<unsigned>((both << (shift & 31)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  const uint64_t both = (static_cast<uint64_t>(high) << 32) | low;
  return static_cast<unsigned>(both >> (shift & 31));
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t bytes = (static_cast<uint64_t>(b) << 32) | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned pick = (selector >> (4 * i)) & 0xf;
    unsigned byte = static_cast<unsigned>(bytes >> (8 * (pick & 7))) & 0xff;
    if ((pick & 8) != 0) byte = (byte & 0x80) != 0 ? 0xff : 0;  // Replicates the sign.
    result |= byte << (8 * i);
  }
  return result;
}

namespace simt {
template <typename To, typename From>
To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}
}  // namespace simt

inline unsigned __float_as_uint(float x) { return simt::bits_as<unsigned>(x); }
inline int __float_as_int(float x) { return simt::bits_as<int>(x); }
inline float __uint_as_float(unsigned x) { return simt::bits_as<float>(x); }
inline float __int_as_float(int x) { return simt::bits_as<float>(x); }
inline long long __double_as_longlong(double x) { return simt::bits_as<long long>(x); }
inline double __longlong_as_double(long long x) { return simt::bits_as<double>(x); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }  // NaN: 0.
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

namespace simt {
/// Out-of-range values saturate and NaN is 0, as cvt does; in C++ they are undefined.
template <typename Integer, typename Float>
Integer saturating_cast(Float x) {
  constexpr Integer kLowest = static_cast<Integer>(1) << (sizeof(Integer) * 8 - 1);
  constexpr bool kSigned = static_cast<Integer>(-1) < 0;
  constexpr Integer kMin = kSigned ? kLowest : 0;
  constexpr Integer kMax = static_cast<Integer>(~kMin);
  if (!(x == x)) return 0;
  if (x <= static_cast<Float>(kMin)) return kMin;
  if (x >= static_cast<Float>(kMax)) return kMax;
  return static_cast<Integer>(x);
}
}  // namespace simt

inline int __float2int_rn(float x) { return simt::saturating_cast<int>(std::nearbyint(x)); }
inline int __float2int_rz(float x) { return simt::saturating_cast<int>(x); }
inline int __float2int_rd(float x) { return simt::saturating_cast<int>(std::floor(x)); }
inline int __float2int_ru(float x) { return simt::saturating_cast<int>(std::ceil(x)); }
inline unsigned __float2uint_rn(float x) {
  return simt::saturating_cast<unsigned>(std::nearbyint(x));
}
inline unsigned __float2uint_rz(float x) { return simt::saturating_cast<unsigned>(x); }
inline unsigned __float2uint_rd(float x) { return simt::saturating_cast<unsigned>(std::floor(x)); }
inline long long __double2ll_rn(double x) {
  return simt::saturating_cast<long long>(std::nearbyint(x));
}
inline long long __double2ll_rz(double x) { return simt::saturating_cast<long long>(x); }
inline unsigned long long __double2ull_rn(double x) {
  return simt::saturating_cast<unsigned long long>(std::nearbyint(x));
}
inline unsigned long long __double2ull_rz(double x) {
  return simt::saturating_cast<unsigned long long>(x);
}
inline long long __float2ll_rn(float x) {
  return simt::saturating_cast<long long>(std::nearbyint(x));
}
inline unsigned long long __float2ull_rn(float x) {
  return simt::saturating_cast<unsigned long long>(std::nearbyint(x));
}
inline unsigned long long __float2ull_rz(float x) {
  return simt::saturating_cast<unsigned long long>(x);
}
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline float __ull2float_rn(unsigned long long x) { return static_cast<float>(x); }
inline double __ull2double_rn(unsigned long long x) { return static_cast<double>(x); }
inline float __double2float_rn(double x) { return static_cast<float>(x); }

#define SIMT_MIN_MAX(T)                            \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
SIMT_MIN_MAX(int)
SIMT_MIN_MAX(unsigned)
SIMT_MIN_MAX(long)
SIMT_MIN_MAX(unsigned long)
SIMT_MIN_MAX(long long)
SIMT_MIN_MAX(unsigned long long)
#undef SIMT_MIN_MAX
inline unsigned min(int a, unsigned b) { return min(static_cast<unsigned>(a), b); }
inline unsigned min(unsigned a, int b) { return min(a, static_cast<unsigned>(b)); }
inline unsigned max(int a, unsigned b) { return max(static_cast<unsigned>(a), b); }
inline unsigned max(unsigned a, int b) { return max(a, static_cast<unsigned>(b)); }
inline float min(float a, float b) { return std::fmin(a, b); }  // A number wins over a NaN.
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }
