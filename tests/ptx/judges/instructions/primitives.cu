// Every function of csrc/cuda/arch except wgmma's, beside CUTLASS's. Offsets are those of barriers
// in shared memory.
// SPDX-License-Identifier: Apache-2.0
#include <cutlass/arch/barrier.h>
#include <cutlass/arch/reg_reconfig.h>
#include <cutlass/functional.h>
#include <cutlass/numeric_conversion.h>

#include <cstdint>
#include <cute/arch/cluster_sm90.hpp>
#include <cute/arch/copy_sm75.hpp>
#include <cute/arch/copy_sm80.hpp>
#include <cute/arch/copy_sm90.hpp>
#include <cute/arch/copy_sm90_desc.hpp>
#include <cute/arch/copy_sm90_tma.hpp>
#include <cute/arch/mma_sm80.hpp>

#include "cuda/arch/async_copy.h"
#include "cuda/arch/barrier.h"
#include "cuda/arch/bulk_copy.h"
#include "cuda/arch/element.h"
#include "cuda/arch/math.h"
#include "cuda/arch/matrix.h"
#include "cuda/arch/tensor_map.h"
#include "cuda/arch/warp_specialization.h"
#include "pairs.h"

using namespace minference;
using cute::uint128_t;
using Barrier = cutlass::arch::ClusterBarrier;
using TransactionBarrier = cutlass::arch::ClusterTransactionBarrier;
using Map = CUtensorMap;

extern __shared__ __align__(1024) unsigned char shared[];

__device__ arch::Mbarrier& our_barrier(int offset) {
  return *reinterpret_cast<arch::Mbarrier*>(shared + offset);
}
template <typename CutlassBarrier = Barrier>
__device__ CutlassBarrier& barrier(int offset) {
  return *reinterpret_cast<CutlassBarrier*>(shared + offset);
}
__device__ uint64_t* bits(int offset) { return reinterpret_cast<uint64_t*>(shared + offset); }

// ---- barrier.h: mbarriers -----------------------------------------------------------------------

OURS(mbarrier_init)(int offset, int n) { arch::mbarrier_init(our_barrier(offset), n); }
CUTLASS(mbarrier_init)(int offset, int n) { barrier(offset).init(n); }

OURS(mbarrier_inval)(int offset) { arch::mbarrier_inval(our_barrier(offset)); }
CUTLASS(mbarrier_inval)(int offset) { Barrier::invalidate(bits(offset)); }

OURS(fence_mbarrier_init)() { arch::fence_mbarrier_init(); }
CUTLASS(fence_mbarrier_init)() { cutlass::arch::fence_barrier_init(); }

OURS(mbarrier_arrive)(int offset) { arch::mbarrier_arrive(our_barrier(offset)); }
CUTLASS(mbarrier_arrive)(int offset) { barrier(offset).arrive(); }

OURS(mbarrier_arrive_expect_tx)(int offset, uint32_t bytes) {
  arch::mbarrier_arrive_expect_tx(our_barrier(offset), bytes);
}
CUTLASS(mbarrier_arrive_expect_tx)(int offset, uint32_t bytes) {
  barrier<TransactionBarrier>(offset).arrive_and_expect_tx(bytes);
}

OURS(mbarrier_expect_tx)(int offset, uint32_t bytes) {
  arch::mbarrier_expect_tx(our_barrier(offset), bytes);
}
CUTLASS(mbarrier_expect_tx)(int offset, uint32_t bytes) {
  barrier<TransactionBarrier>(offset).expect_transaction(bytes);
}

OURS(mbarrier_test_wait)(int offset, uint32_t parity, int* out) {
  *out = arch::mbarrier_test_wait(our_barrier(offset), parity);
}
CUTLASS(mbarrier_test_wait)(int offset, uint32_t parity, int* out) {
  *out = barrier(offset).test_wait(parity);
}

OURS(mbarrier_try_wait)(int offset, uint32_t parity, int* out) {
  *out = arch::mbarrier_try_wait(our_barrier(offset), parity);
}
CUTLASS(mbarrier_try_wait)(int offset, uint32_t parity, int* out) {
  *out = barrier(offset).try_wait(parity);
}

OURS(mbarrier_wait)(int offset, uint32_t parity) {
  arch::mbarrier_wait(our_barrier(offset), parity);
}
CUTLASS(mbarrier_wait)(int offset, uint32_t parity) { barrier(offset).wait(parity); }

OURS(cp_async_mbarrier_arrive)(int offset) {
  arch::cp_async_mbarrier_arrive_noinc(our_barrier(offset));
}
CUTLASS(cp_async_mbarrier_arrive)(int offset) {
  cutlass::arch::cpasync_barrier_arrive_noinc(bits(offset));
}

// ---- barrier.h: others; warp_specialization.h ---------------------------------------------------

OURS(fence_proxy_async)() { arch::fence_proxy_async(); }
CUTLASS(fence_proxy_async)() { cutlass::arch::fence_view_async_shared(); }

OURS(named_barrier_sync)(int id, int threads) { arch::named_barrier_sync(id, threads); }
CUTLASS(named_barrier_sync)(int id, int threads) {
  cutlass::arch::NamedBarrier::sync(threads, static_cast<cutlass::arch::ReservedNamedBarriers>(id));
}

OURS(named_barrier_arrive)(int id, int threads) { arch::named_barrier_arrive(id, threads); }
CUTLASS(named_barrier_arrive)(int id, int threads) {
  cutlass::arch::NamedBarrier::arrive(threads,
                                      static_cast<cutlass::arch::ReservedNamedBarriers>(id));
}

OURS(elect_one)() {
  if (arch::elect_one()) __nanosleep(1);
}
CUTLASS(elect_one)() {
  if (cute::elect_one_sync()) __nanosleep(1);
}

OURS(setmaxnreg)() {
  arch::setmaxnreg_dec<72>();
  arch::setmaxnreg_inc<216>();
}
CUTLASS(setmaxnreg)() {
  cutlass::arch::warpgroup_reg_dealloc<72>();
  cutlass::arch::warpgroup_reg_alloc<216>();
}

// ---- tensor_map.h, bulk_copy.h ------------------------------------------------------------------

OURS(prefetch_tensor_map)(const __grid_constant__ Map map) { arch::prefetch_tensor_map(map); }
CUTLASS(prefetch_tensor_map)(const __grid_constant__ Map map) {
  cute::prefetch_tma_descriptor(&map);
}

OURS(load_2d)(const __grid_constant__ Map map, int offset, int x, int y, uint64_t policy) {
  arch::cp_async_bulk_tensor_load(shared, map, {x, y}, our_barrier(offset), {policy});
}
CUTLASS(load_2d)(const __grid_constant__ Map map, int offset, int x, int y, uint64_t policy) {
  cute::SM90_TMA_LOAD_2D::copy(&map, bits(offset), policy, shared, x, y);
}

OURS(load_3d)(const __grid_constant__ Map map, int offset, int x, int y, int z, uint64_t policy) {
  arch::cp_async_bulk_tensor_load(shared, map, {x, y, z}, our_barrier(offset), {policy});
}
CUTLASS(load_3d)
(const __grid_constant__ Map map, int offset, int x, int y, int z, uint64_t policy) {
  cute::SM90_TMA_LOAD_3D::copy(&map, bits(offset), policy, shared, x, y, z);
}

OURS(load_4d)
(const __grid_constant__ Map map, int offset, int x, int y, int z, int w, uint64_t policy) {
  arch::cp_async_bulk_tensor_load(shared, map, {x, y, z, w}, our_barrier(offset), {policy});
}
CUTLASS(load_4d)
(const __grid_constant__ Map map, int offset, int x, int y, int z, int w, uint64_t policy) {
  cute::SM90_TMA_LOAD_4D::copy(&map, bits(offset), policy, shared, x, y, z, w);
}

OURS(load_evict_normal)(const __grid_constant__ Map map, int offset, int x, int y) {
  arch::cp_async_bulk_tensor_load(shared, map, {x, y}, our_barrier(offset));
}
CUTLASS(load_evict_normal)(const __grid_constant__ Map map, int offset, int x, int y) {
  const auto policy = static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_NORMAL);
  cute::SM90_TMA_LOAD_2D::copy(&map, bits(offset), policy, shared, x, y);
}

OURS(load_evict_first)(const __grid_constant__ Map map, int offset, int x, int y) {
  arch::cp_async_bulk_tensor_load(shared, map, {x, y}, our_barrier(offset), arch::l2_evict_first());
}
CUTLASS(load_evict_first)(const __grid_constant__ Map map, int offset, int x, int y) {
  const auto policy = static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_FIRST);
  cute::SM90_TMA_LOAD_2D::copy(&map, bits(offset), policy, shared, x, y);
}

OURS(load_evict_last)(const __grid_constant__ Map map, int offset, int x, int y) {
  arch::cp_async_bulk_tensor_load(shared, map, {x, y}, our_barrier(offset), arch::l2_evict_last());
}
CUTLASS(load_evict_last)(const __grid_constant__ Map map, int offset, int x, int y) {
  const auto policy = static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_LAST);
  cute::SM90_TMA_LOAD_2D::copy(&map, bits(offset), policy, shared, x, y);
}

OURS(store_2d)(const __grid_constant__ Map map, int x, int y, uint64_t policy) {
  arch::cp_async_bulk_tensor_store(map, {x, y}, shared, {policy});
}
CUTLASS(store_2d)(const __grid_constant__ Map map, int x, int y, uint64_t) {
  cute::SM90_TMA_STORE_2D::copy(&map, shared, x, y);
}

OURS(store_3d)(const __grid_constant__ Map map, int x, int y, int z, uint64_t policy) {
  arch::cp_async_bulk_tensor_store(map, {x, y, z}, shared, {policy});
}
CUTLASS(store_3d)(const __grid_constant__ Map map, int x, int y, int z, uint64_t) {
  cute::SM90_TMA_STORE_3D::copy(&map, shared, x, y, z);
}

OURS(store_4d)(const __grid_constant__ Map map, int x, int y, int z, int w, uint64_t policy) {
  arch::cp_async_bulk_tensor_store(map, {x, y, z, w}, shared, {policy});
}
CUTLASS(store_4d)(const __grid_constant__ Map map, int x, int y, int z, int w, uint64_t) {
  cute::SM90_TMA_STORE_4D::copy(&map, shared, x, y, z, w);
}

OURS(bulk_load)(int offset, void* global, uint32_t bytes, uint64_t policy) {
  arch::cp_async_bulk_load(shared, global, bytes, our_barrier(offset), {policy});
}
CUTLASS(bulk_load)(int offset, void* global, uint32_t bytes, uint64_t) {
  cute::SM90_BULK_COPY_G2S::copy(global, bits(offset), shared, bytes);
}

OURS(bulk_store)(void* global, uint32_t bytes, uint64_t policy) {
  arch::cp_async_bulk_store(global, shared, bytes, {policy});
}
CUTLASS(bulk_store)(void* global, uint32_t bytes, uint64_t) {
  cute::SM90_BULK_COPY_S2G::copy(shared, global, bytes);
}

OURS(bulk_groups)() {
  arch::cp_async_bulk_commit();
  arch::cp_async_bulk_wait_read<1>();
}
CUTLASS(bulk_groups)() {
  cute::tma_store_arrive();
  cute::tma_store_wait<1>();
}

// ---- async_copy.h -------------------------------------------------------------------------------

OURS(cp_async)(int offset, const uint128_t* global, bool exists) {
  arch::cp_async_16(shared + offset, global, exists ? 16 : 0);
  arch::cp_async_commit();
  arch::cp_async_wait<1>();
}
CUTLASS(cp_async)(int offset, const uint128_t* global, bool exists) {
  cute::SM80_CP_ASYNC_CACHEGLOBAL_ZFILL<uint128_t>::copy(
      *global, *reinterpret_cast<uint128_t*>(shared + offset), exists);
  cute::cp_async_fence();
  cute::cp_async_wait<1>();
}

// ---- matrix.h -----------------------------------------------------------------------------------

OURS(ldmatrix)(int offset, uint4* out) {
  uint32_t words[4];
  arch::ldmatrix_x4(words, shared + offset);
  *out = make_uint4(words[0], words[1], words[2], words[3]);
}
CUTLASS(ldmatrix)(int offset, uint4* out) {
  uint4 words;
  cute::SM75_U32x4_LDSM_N::copy(*reinterpret_cast<uint128_t*>(shared + offset), words.x, words.y,
                                words.z, words.w);
  *out = words;
}

OURS(ldmatrix_transposed)(int offset, uint4* out) {
  uint32_t words[4];
  arch::ldmatrix_x4_transposed(words, shared + offset);
  *out = make_uint4(words[0], words[1], words[2], words[3]);
}
CUTLASS(ldmatrix_transposed)(int offset, uint4* out) {
  uint4 words;
  cute::SM75_U16x8_LDSM_T::copy(*reinterpret_cast<uint128_t*>(shared + offset), words.x, words.y,
                                words.z, words.w);
  *out = words;
}

OURS(stmatrix)(int offset, uint4 words) {
  const uint32_t fragment[4] = {words.x, words.y, words.z, words.w};
  arch::stmatrix_x4(shared + offset, fragment);
}
CUTLASS(stmatrix)(int offset, uint4 words) {
  cute::SM90_U32x4_STSM_N::copy(words.x, words.y, words.z, words.w,
                                *reinterpret_cast<uint128_t*>(shared + offset));
}

template <typename Element>
__device__ void our_mma(float4* sums, uint4 a, uint2 b) {
  float c[4] = {sums->x, sums->y, sums->z, sums->w};
  arch::mma_m16n8k16<Element>(c, {a.x, a.y, a.z, a.w}, {b.x, b.y});
  *sums = make_float4(c[0], c[1], c[2], c[3]);
}
template <typename Operation>
__device__ void cutlass_mma(float4* sums, uint4 a, uint2 b) {
  const float4 c = *sums;
  float4 d;
  Operation::fma(d.x, d.y, d.z, d.w, a.x, a.y, a.z, a.w, b.x, b.y, c.x, c.y, c.z, c.w);
  *sums = d;
}

OURS(mma_bf16)(float4* sums, uint4 a, uint2 b) { our_mma<arch::BFloat16>(sums, a, b); }
CUTLASS(mma_bf16)(float4* sums, uint4 a, uint2 b) {
  cutlass_mma<cute::SM80_16x8x16_F32BF16BF16F32_TN>(sums, a, b);
}

OURS(mma_f16)(float4* sums, uint4 a, uint2 b) { our_mma<arch::Float16>(sums, a, b); }
CUTLASS(mma_f16)(float4* sums, uint4 a, uint2 b) {
  cutlass_mma<cute::SM80_16x8x16_F32F16F16F32_TN>(sums, a, b);
}

// ---- element.h, math.h --------------------------------------------------------------------------

template <typename Element>
__device__ uint32_t cutlass_pack(float low, float high) {
  cutlass::Array<float, 2> pair;
  pair[0] = low;
  pair[1] = high;
  const auto packed = cutlass::NumericArrayConverter<Element, float, 2>{}(pair);
  return reinterpret_cast<const uint32_t&>(packed);
}
template <typename Element>
__device__ float2 cutlass_unpack(uint32_t pair) {
  const auto& elements = reinterpret_cast<const cutlass::Array<Element, 2>&>(pair);
  const auto floats = cutlass::NumericArrayConverter<float, Element, 2>{}(elements);
  return make_float2(floats[0], floats[1]);
}
template <typename Element>
__device__ float2 our_unpack(uint32_t pair) {
  const arch::FloatPair floats = arch::unpack_elements<Element>(pair);
  return make_float2(floats.low, floats.high);
}

OURS(pack_bf16)(uint32_t* out, float low, float high) {
  *out = arch::pack_elements<arch::BFloat16>(low, high);
}
CUTLASS(pack_bf16)(uint32_t* out, float low, float high) {
  *out = cutlass_pack<cutlass::bfloat16_t>(low, high);
}

OURS(pack_f16)(uint32_t* out, float low, float high) {
  *out = arch::pack_elements<arch::Float16>(low, high);
}
CUTLASS(pack_f16)(uint32_t* out, float low, float high) {
  *out = cutlass_pack<cutlass::half_t>(low, high);
}

OURS(unpack_bf16)(float2* out, uint32_t pair) { *out = our_unpack<arch::BFloat16>(pair); }
CUTLASS(unpack_bf16)(float2* out, uint32_t pair) {
  *out = cutlass_unpack<cutlass::bfloat16_t>(pair);
}

OURS(unpack_f16)(float2* out, uint32_t pair) { *out = our_unpack<arch::Float16>(pair); }
CUTLASS(unpack_f16)(float2* out, uint32_t pair) { *out = cutlass_unpack<cutlass::half_t>(pair); }

OURS(reciprocal)(float* out, float x) { *out = arch::reciprocal_approx(x); }
CUTLASS(reciprocal)(float* out, float x) { *out = cutlass::reciprocal_approximate_ftz<float>{}(x); }
