// Shared memory: the block's storage struct, and the 32-bit addresses that instructions take.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
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

/// The launch's dynamic shared memory as a Storage, uninitialised. The launch must ask for
/// sizeof(Storage) bytes.
template <typename Storage>
__device__ inline Storage& shared_storage() {
#if defined(MINF_SIMT)
  return *static_cast<Storage*>(simt::dynamic_shared(sizeof(Storage), alignof(Storage)));
#else
  // Swizzles permute addresses, so the array must be aligned. ptxas aligns it as declared, after
  // the system's 1 KiB and static shared memory. The address is not checked: the compiler trusts
  // the declaration and would drop the check.
  constexpr std::size_t kAlignment = 1024;
  static_assert(alignof(Storage) <= kAlignment);
  extern __shared__ __align__(kAlignment) unsigned char minf_dynamic_shared[];
  return *reinterpret_cast<Storage*>(minf_dynamic_shared);
#endif
}

}  // namespace minference::arch
