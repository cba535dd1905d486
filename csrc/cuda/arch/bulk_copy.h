// Bulk copies between global and shared memory, by the copy engine (sm_90). One thread starts a
// copy, which needs no further instructions. Loads report to an mbarrier: they are visible to
// whoever has waited for its phase. Stores form groups of their thread, as cp.async does. Before a
// store reads shared memory, its writers must have executed fence_proxy_async() and then met at a
// barrier.
//
// A box in shared memory begins at a multiple of 128 bytes. If it is swizzled, and offsets within
// it are to mean the same as addresses, it begins at a multiple of the pattern's length
// (swizzle.h). A load counts its whole box at the mbarrier, even what lies outside the tensor.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/barrier.h"
#include "cuda/arch/tensor_map.h"

namespace minference::arch {

/// What the L2 cache is told about a copy's lines: a hint that never changes results.
struct CachePolicy {
  uint64_t bits;
};

/// PTX ISA: createpolicy.fractional.L2::evict_normal.
__device__ inline CachePolicy l2_evict_normal() {
#if defined(MINF_SIMT)
  return {0};
#else
  CachePolicy policy;
  asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy.bits));
  return policy;
#endif
}

/// For what is read once. PTX ISA: createpolicy.fractional.L2::evict_first.
__device__ inline CachePolicy l2_evict_first() {
#if defined(MINF_SIMT)
  return {0};
#else
  CachePolicy policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy.bits));
  return policy;
#endif
}

/// For what other blocks will read again. PTX ISA: createpolicy.fractional.L2::evict_last.
__device__ inline CachePolicy l2_evict_last() {
#if defined(MINF_SIMT)
  return {0};
#else
  CachePolicy policy;
  asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy.bits));
  return policy;
#endif
}

// ---- Loads --------------------------------------------------------------------------------------

/// Copies `bytes`, a multiple of 16; all addresses 16-byte aligned.
/// PTX ISA: cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.
__device__ inline void cp_async_bulk_load(void* shared, const void* source, uint32_t bytes,
                                          Mbarrier& barrier,
                                          CachePolicy policy = l2_evict_normal()) {
#if defined(MINF_SIMT)
  static_cast<void>(policy);
  simt::bulk_load(shared, source, bytes, &barrier);
#else
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4;"
      :
      : "r"(shared_address(shared)), "l"(source), "r"(bytes), "r"(shared_address(&barrier)),
        "l"(policy.bits)
      : "memory");
#endif
}

/// Copies the map's box whose first element has these coordinates, innermost first; any integers.
/// PTX ISA: cp.async.bulk.tensor.{2,3,4}d.shared::cluster.global.mbarrier::complete_tx::bytes.
template <int kRank>
__device__ inline void cp_async_bulk_tensor_load(void* shared, const CUtensorMap& map,
                                                 const int32_t (&coordinates)[kRank],
                                                 Mbarrier& barrier,
                                                 CachePolicy policy = l2_evict_normal()) {
  static_assert(2 <= kRank && kRank <= 4);
#if defined(MINF_SIMT)
  static_cast<void>(policy);
  simt::bulk_tensor_load(shared, &map, coordinates, kRank, &barrier);
#else
  if constexpr (kRank == 2) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_"
        "hint "
        "[%0], [%1, {%2, %3}], [%4], %5;"
        :
        : "r"(shared_address(shared)), "l"(&map), "r"(coordinates[0]), "r"(coordinates[1]),
          "r"(shared_address(&barrier)), "l"(policy.bits)
        : "memory");
  } else if constexpr (kRank == 3) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_"
        "hint "
        "[%0], [%1, {%2, %3, %4}], [%5], %6;"
        :
        : "r"(shared_address(shared)), "l"(&map), "r"(coordinates[0]), "r"(coordinates[1]),
          "r"(coordinates[2]), "r"(shared_address(&barrier)), "l"(policy.bits)
        : "memory");
  } else {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_"
        "hint "
        "[%0], [%1, {%2, %3, %4, %5}], [%6], %7;"
        :
        : "r"(shared_address(shared)), "l"(&map), "r"(coordinates[0]), "r"(coordinates[1]),
          "r"(coordinates[2]), "r"(coordinates[3]), "r"(shared_address(&barrier)), "l"(policy.bits)
        : "memory");
  }
#endif
}

// ---- Stores -------------------------------------------------------------------------------------

/// Copies `bytes`, a multiple of 16, to global memory; addresses 16-byte aligned.
/// PTX ISA: cp.async.bulk.global.shared::cta.bulk_group.
__device__ inline void cp_async_bulk_store(void* destination, const void* shared, uint32_t bytes,
                                           CachePolicy policy = l2_evict_normal()) {
#if defined(MINF_SIMT)
  static_cast<void>(policy);
  simt::bulk_store(destination, shared, bytes);
#else
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group.L2::cache_hint [%0], [%1], %2, %3;"
               :
               : "l"(destination), "r"(shared_address(shared)), "r"(bytes), "l"(policy.bits)
               : "memory");
#endif
}

/// Copies a box to the map's tensor; what lies outside the tensor is not written.
/// PTX ISA: cp.async.bulk.tensor.{2,3,4}d.global.shared::cta.bulk_group.
template <int kRank>
__device__ inline void cp_async_bulk_tensor_store(const CUtensorMap& map,
                                                  const int32_t (&coordinates)[kRank],
                                                  const void* shared,
                                                  CachePolicy policy = l2_evict_normal()) {
  static_assert(2 <= kRank && kRank <= 4);
#if defined(MINF_SIMT)
  static_cast<void>(policy);
  simt::bulk_tensor_store(&map, coordinates, kRank, shared);
#else
  if constexpr (kRank == 2) {
    asm volatile(
        "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group.L2::cache_hint "
        "[%0, {%1, %2}], [%3], %4;"
        :
        : "l"(&map), "r"(coordinates[0]), "r"(coordinates[1]), "r"(shared_address(shared)),
          "l"(policy.bits)
        : "memory");
  } else if constexpr (kRank == 3) {
    asm volatile(
        "cp.async.bulk.tensor.3d.global.shared::cta.bulk_group.L2::cache_hint "
        "[%0, {%1, %2, %3}], [%4], %5;"
        :
        : "l"(&map), "r"(coordinates[0]), "r"(coordinates[1]), "r"(coordinates[2]),
          "r"(shared_address(shared)), "l"(policy.bits)
        : "memory");
  } else {
    asm volatile(
        "cp.async.bulk.tensor.4d.global.shared::cta.bulk_group.L2::cache_hint "
        "[%0, {%1, %2, %3, %4}], [%5], %6;"
        :
        : "l"(&map), "r"(coordinates[0]), "r"(coordinates[1]), "r"(coordinates[2]),
          "r"(coordinates[3]), "r"(shared_address(shared)), "l"(policy.bits)
        : "memory");
  }
#endif
}

/// Closes the group of this thread's stores; an empty group is legal.
/// PTX ISA: cp.async.bulk.commit_group.
__device__ inline void cp_async_bulk_commit() {
#if defined(MINF_SIMT)
  simt::bulk_commit();
#else
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
#endif
}

/// Waits until all but the latest kPending of this thread's groups have been written.
/// PTX ISA: cp.async.bulk.wait_group.
template <int kPending>
__device__ inline void cp_async_bulk_wait() {
#if defined(MINF_SIMT)
  simt::bulk_wait(kPending, /*read_only=*/false);
#else
  asm volatile("cp.async.bulk.wait_group %0;" : : "n"(kPending) : "memory");
#endif
}

/// Waits until they have been read: their shared memory may be used again.
/// PTX ISA: cp.async.bulk.wait_group.read.
template <int kPending>
__device__ inline void cp_async_bulk_wait_read() {
#if defined(MINF_SIMT)
  simt::bulk_wait(kPending, /*read_only=*/true);
#else
  asm volatile("cp.async.bulk.wait_group.read %0;" : : "n"(kPending) : "memory");
#endif
}

}  // namespace minference::arch
