// The instructions of sm_90 and sm_90a: mbarrier, bulk copies, wgmma and what goes with them. Names
// and meanings are the PTX ISA's; what each does is said beside its wrapper in the code under test.
//
// Beyond what every instruction is checked for (bounds, alignment, initialised memory, races):
//   - an mbarrier is used only between its init and its inval, never through other stores; a phase
//     does not get more arrivals than init said, nor a transaction count beyond 2^20 - 1;
//   - what a bulk copy or wgmma reads or writes is touched by nobody else before it was waited for;
//   - shared memory written by ordinary stores is behind a proxy fence before a bulk copy or wgmma
//     reads it, or a bulk copy overwrites it; so is what ordinary loads read, before a bulk copy
//     overwrites it;
//   - accumulators and register operands of wgmma are left alone until waited for; accumulators
//     hold NaN until they are waited for and kept;
//   - a warpgroup's threads issue the same wgmma.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>

namespace simt {

// ---- mbarrier: `barrier` is 8 bytes of shared memory, 8-byte aligned ---------------------------

void mbarrier_init(void* barrier, int arrivals);
void mbarrier_inval(void* barrier);
void fence_mbarrier_init();
void mbarrier_arrive(void* barrier);
void mbarrier_arrive_expect_tx(void* barrier, uint32_t bytes);
void mbarrier_expect_tx(void* barrier, uint32_t bytes);
bool mbarrier_test_wait(const void* barrier, uint32_t parity);
/// Sleeps until true: whatever time it is given does not run out.
bool mbarrier_try_wait(const void* barrier, uint32_t parity);
void cp_async_mbarrier_arrive_noinc(void* barrier);

// ---- Bulk copies -------------------------------------------------------------------------------

void prefetch_tensor_map(const CUtensorMap* map);
void bulk_load(void* shared, const void* global, uint32_t bytes, void* barrier);
void bulk_store(void* global, const void* shared, uint32_t bytes);
void bulk_tensor_load(void* shared, const CUtensorMap* map, const int32_t* coordinates, int rank,
                      void* barrier);
void bulk_tensor_store(const CUtensorMap* map, const int32_t* coordinates, int rank,
                       const void* shared);
void bulk_commit();
void bulk_wait(int pending, bool read_only);

// ---- wgmma: `d` holds n / 2 accumulators, `a` four registers; both of the calling thread -------

void wgmma_fence();
void wgmma_commit_group();
void wgmma_wait(int pending);
void wgmma_shared(float* d, int n, uint64_t a, uint64_t b, bool accumulate, bool transposed_b,
                  bool bf16);
void wgmma_registers(float* d, int n, const uint32_t* a, uint64_t b, bool accumulate,
                     bool transposed_b, bool bf16);

/// Where the compiler is told that accumulators have changed. Only here do results reach `d`, so
/// that code that a compiler may get wrong, reading them without telling it, reads NaN.
void keep_registers(float* d, int count);

// ---- Others -------------------------------------------------------------------------------------

void fence_proxy_async();
void setmaxnreg(int registers, bool increase);
bool elect_one();

}  // namespace simt
