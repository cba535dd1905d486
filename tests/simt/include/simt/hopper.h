// The instructions of sm_90 and sm_90a: mbarrier, bulk copies, wgmma and their companions. Names
// and meanings are the PTX ISA's; the code under test says beside each wrapper what it does.
//
// Checks beyond those of every instruction (bounds, alignment, initialised memory, races):
//   - an mbarrier is used only between its init and its inval, never through other stores; a phase
//     does not get more arrivals than init said, nor a transaction count beyond 2^20 - 1;
//   - nobody else touches what a bulk copy or wgmma reads or writes until it has been waited for;
//   - a proxy fence lies between ordinary stores to shared memory and a bulk copy or wgmma that
//     reads or overwrites the bytes, and between ordinary loads and a bulk copy that overwrites
//     them;
//   - accumulators and register operands of wgmma are left alone until the wait; accumulators hold
//     NaN until they have been waited for and kept;
//   - all threads of a warpgroup issue the same wgmma.
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
/// Sleeps until the phase is complete: the time limit never runs out.
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

/// Tells the compiler that accumulators have changed. Results reach `d` only here, so code that
/// reads them without telling the compiler, which may then be miscompiled, reads NaN.
void keep_registers(float* d, int count);

// ---- Others -------------------------------------------------------------------------------------

void fence_proxy_async();
void setmaxnreg(int registers, bool increase);
bool elect_one();

}  // namespace simt
