// Shared memory: the block's storage struct, and the 32-bit addresses that instructions take.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/arch/emulation.h"

namespace minference::arch {

/// The launch's dynamic shared memory as a Storage, aligned to 1024 bytes (the 128-byte swizzle's
/// period). Uninitialised. sizeof(Storage) is what the launch must ask for.
template <typename Storage>
__device__ inline Storage& shared_storage() {
#if defined(MINF_SIMT)
  return *static_cast<Storage*>(simt::dynamic_shared(sizeof(Storage), alignof(Storage)));
#else
  extern __shared__ __align__(1024) unsigned char minf_dynamic_shared[];
  return *reinterpret_cast<Storage*>(minf_dynamic_shared);
#endif
}

/// Address in the shared window. PTX ISA: cvta.to.shared.
__device__ inline uint32_t shared_address(const void* pointer) {
#if defined(MINF_SIMT)
  return simt::shared_address(pointer);
#else
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
#endif
}

}  // namespace minference::arch
