// Ordering between the two ways to shared memory: ordinary loads and stores (the generic proxy) and
// bulk copies and wgmma (the async proxy) (sm_90).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/arch/emulation_sm90.h"

namespace minference::arch {

/// Shared memory that this thread wrote with ordinary stores, or saw its cp.async copies land in,
/// may be read by wgmma and bulk copies that come after; what it read with ordinary loads, ldmatrix
/// among them, may be overwritten by bulk copies. By every writer and reader, before the barrier
/// that tells whoever starts the copy or product. Not needed after a bulk copy: waiting for its
/// mbarrier is enough; nor after wgmma, whose reads are of the same proxy as a copy's writes.
/// PTX ISA: fence.proxy.async.
__device__ inline void fence_proxy_async() {
#if defined(MINF_SIMT)
  simt::fence_proxy_async();
#else
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

}  // namespace minference::arch
