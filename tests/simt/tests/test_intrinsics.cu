// CUDA's arithmetic intrinsics, called on the host: they are plain functions.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include <cmath>
#include <limits>

#include "test.h"

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

void test_bits() {
  CHECK(__popc(0xf0f0u) == 8 && __popcll(~0ull) == 64);
  CHECK(__ffs(0) == 0 && __ffs(8) == 4 && __ffsll(1ll << 40) == 41);
  CHECK(__clz(0) == 32 && __clz(1) == 31 && __clz(-1) == 0 && __clzll(0) == 64 && __clzll(1) == 63);
  CHECK(__brev(1) == 0x80000000u && __brev(0xa0000000u) == 5 && __brevll(2) == 1ull << 62);
  CHECK(__umulhi(1u << 31, 6) == 3 && __mulhi(-(1 << 30), 8) == -2);
  CHECK(__umul64hi(1ull << 63, 6) == 3);
  CHECK(__funnelshift_l(0x80000000u, 1, 1) == 3 && __funnelshift_r(0x2, 1, 1) == 0x80000001u);
  CHECK(__byte_perm(0x33221100u, 0x77665544u, 0x7150) == 0x77115500u);
  CHECK(__byte_perm(0x00008000u, 0, 0xd999) == 0x00ffffffu, __byte_perm(0x8000u, 0, 0xd999));
}

void test_reinterpretation() {
  CHECK(__float_as_uint(1.0f) == 0x3f800000u && __uint_as_float(0x40000000u) == 2.0f);
  CHECK(__float_as_int(-0.0f) == std::numeric_limits<int>::min() && __int_as_float(0) == 0.0f);
  CHECK(__longlong_as_double(__double_as_longlong(-1.5)) == -1.5);
}

void test_arithmetic() {
  CHECK(__fmaf_rn(0x1.000002p0f, 0x1.000002p0f, -0x1.000004p0f) == 0x1p-46f);
  CHECK(__fadd_rn(1, 2) == 3 && __fsub_rn(1, 2) == -1 && __fmul_rn(3, 2) == 6);
  CHECK(__fdiv_rn(1, 4) == 0.25f && __fsqrt_rn(9) == 3 && __frcp_rn(8) == 0.125f);
  CHECK(__dadd_rn(1, 2) == 3 && __dmul_rn(3, 2) == 6 && __fma_rn(2, 3, 4) == 10);
  CHECK(rsqrtf(4) == 0.5f && __fdividef(3, 2) == 1.5f && __expf(0) == 1 && __logf(1) == 0);
  CHECK(__log2f(8) == 3);
  CHECK(__saturatef(-1) == 0 && __saturatef(0.5f) == 0.5f && __saturatef(2) == 1);
  CHECK(__saturatef(kNaN) == 0);
}

void test_conversions() {
  constexpr int kMax = std::numeric_limits<int>::max();
  constexpr int kMin = std::numeric_limits<int>::min();
  CHECK(__float2int_rn(2.5f) == 2 && __float2int_rn(3.5f) == 4 && __float2int_rz(-2.9f) == -2);
  CHECK(__float2int_rd(-2.1f) == -3 && __float2int_ru(2.1f) == 3);
  CHECK(__float2int_rn(kInfinity) == kMax && __float2int_rn(-1e20f) == kMin);
  CHECK(__float2int_rz(kNaN) == 0);
  CHECK(__float2uint_rn(-5) == 0 && __float2uint_rz(3e9f) == 3000000000u);
  CHECK(__float2uint_rd(7.9f) == 7 && __float2uint_rn(1e20f) == ~0u);
  CHECK(__double2ll_rn(0x1p52) == 1ll << 52 && __double2ll_rz(-1.5) == -1);
  CHECK(__double2ull_rn(0x1p63) == 1ull << 63 && __double2ull_rz(-1.0) == 0);
  CHECK(__double2ull_rn(1e30) == ~0ull && __float2ll_rn(-2.5f) == -2);
  CHECK(__float2ull_rn(0x1p40f) == 1ull << 40 && __float2ull_rz(1.9f) == 1);
  CHECK(__int2float_rn(16777217) == 16777216.0f && __uint2float_rn(~0u) == 4294967296.0f);
  CHECK(__ull2float_rn(1ull << 60) == 0x1p60f && __ull2double_rn(~0ull) == 0x1p64);
  CHECK(__double2float_rn(0.1) == 0.1f);
}

void test_min_max() {
  CHECK(min(1, -1) == -1 && max(1, -1) == 1 && min(1u, 2u) == 1 && max(1ull, 2ull) == 2);
  CHECK(max(-1, 0u) == ~0u && min(-1, 5u) == 5, "mixed signs are unsigned, as in CUDA");
  CHECK(min(1.0f, kNaN) == 1.0f && max(kNaN, 2.0f) == 2.0f && max(1.0, 3.0) == 3.0);
  CHECK(fminf(1, 2) == 1 && fmaxf(1, 2) == 2 && warpSize == 32);
  const float value = 1.5f;
  CHECK(__ldg(&value) == 1.5f);
}

void test_vectors() {
  static_assert(alignof(float4) == 16 && alignof(int2) == 8 && alignof(uint3) == 4);
  static_assert(alignof(double2) == 16 && sizeof(uchar4) == 4 && alignof(ushort4) == 8);
  const float4 v = make_float4(1, 2, 3, 4);
  const uint2 u = make_uint2(5, 6);
  CHECK(v.x == 1 && v.w == 4 && u.y == 6);
  const dim3 extent = make_uint3(7, 8, 9);
  CHECK(extent.z == 9 && dim3(4).y == 1 && uint3(dim3(1, 2)).y == 2);
}

}  // namespace

int main() {
  test_bits();
  test_reinterpretation();
  test_arithmetic();
  test_conversions();
  test_min_max();
  test_vectors();
  return simt::test::finish();
}
