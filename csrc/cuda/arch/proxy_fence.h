// Ordering between the two ways to shared memory: ordinary loads and stores (the generic proxy) and
// bulk copies and wgmma (the async proxy) (sm_90).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/arch/emulation_sm90.h"

namespace minference::arch {

/// Shared memory that this thread wrote with ordinary stores, or saw its cp.async copies land in,
/// may be read by wgmma and bulk copies that come after. By every writer, before the barrier that
/// tells the reader. Not needed after a bulk copy: waiting for its mbarrier is enough.
/// PTX ISA: fence.proxy.async.
__device__ inline void fence_proxy_async() {
#if defined(MINF_SIMT)
  simt::fence_proxy_async();
#else
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

}  // namespace minference::arch
