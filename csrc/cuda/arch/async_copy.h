// cp.async: copies from global to shared memory that land later (sm_80 and up). A thread's copies
// since its last commit form a group. Waiting makes groups visible to the thread itself; a barrier
// after that makes them visible to the block.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/shared.h"

namespace minference::arch {

/// Copies `source_bytes` (0 to 16) bytes and fills the rest of the 16 with zeros. Both addresses
/// are 16-byte aligned; with 0 bytes `source` is not read. Bypasses L1. `shared` is an address in
/// the shared window, or a pointer.
/// PTX ISA: cp.async.cg.shared.global, with src-size.
__device__ inline void cp_async_16(uint32_t shared, const void* source, int source_bytes = 16) {
#if defined(MINF_SIMT)
  simt::cp_async(simt::shared_pointer(shared), source, 16, source_bytes);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(shared), "l"(source), "r"(source_bytes)
               : "memory");
#endif
}
__device__ inline void cp_async_16(void* shared, const void* source, int source_bytes = 16) {
  cp_async_16(shared_address(shared), source, source_bytes);
}

/// Closes the group of this thread's copies; an empty group is legal.
/// PTX ISA: cp.async.commit_group.
__device__ inline void cp_async_commit() {
#if defined(MINF_SIMT)
  simt::cp_async_commit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/// Waits until at most kPending of this thread's groups have not landed.
/// PTX ISA: cp.async.wait_group.
template <int kPending>
__device__ inline void cp_async_wait() {
#if defined(MINF_SIMT)
  simt::cp_async_wait(kPending);
#else
  asm volatile("cp.async.wait_group %0;" : : "n"(kPending) : "memory");
#endif
}

}  // namespace minference::arch
