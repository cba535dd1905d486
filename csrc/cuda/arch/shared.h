// Shared memory: the block's storage struct, and the 32-bit addresses that instructions take.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/emulation.h"

namespace minference::arch {

/// Address in the shared window. PTX ISA: cvta.to.shared.
__device__ inline uint32_t shared_address(const void* pointer) {
#if defined(MINF_SIMT)
  return simt::shared_address(pointer);
#else
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
#endif
}

/// The launch's dynamic shared memory as a Storage. Uninitialised. sizeof(Storage) is what the
/// launch must ask for.
template <typename Storage>
__device__ inline Storage& shared_storage() {
#if defined(MINF_SIMT)
  return *static_cast<Storage*>(simt::dynamic_shared(sizeof(Storage), alignof(Storage)));
#else
  extern __shared__ __align__(1024) unsigned char minf_dynamic_shared[];
  // The compiler aligns no such array beyond 16 bytes: it begins behind static shared memory and
  // what the system reserves. Swizzles are of addresses, so another place would give other results.
  if constexpr (alignof(Storage) > 16) {
    if (shared_address(minf_dynamic_shared) % alignof(Storage) != 0) __trap();
  }
  return *reinterpret_cast<Storage*>(minf_dynamic_shared);
#endif
}

}  // namespace minference::arch
