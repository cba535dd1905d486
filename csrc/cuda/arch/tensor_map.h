// Tensor maps: how a bulk tensor copy finds a box of a strided tensor in global memory (sm_90). The
// driver encodes them on the host; its function is looked up at run time, so nothing links against
// libcuda. Kernels take them by value, as `const __grid_constant__ CUtensorMap`.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/check.h"
#include "cuda/arch/emulation.h"
#include "cuda/arch/swizzle.h"
#include "cuda/check.h"

namespace minference::arch {

/// A tensor of 16-bit elements and the box that one copy moves. Dimension 0 is the innermost; its
/// elements are adjacent. In shared memory the box is dense, dimension 0 innermost.
template <int kRank>
struct TensorTile {
  const void* base = nullptr;         // 16-byte aligned.
  uint64_t sizes[kRank] = {};         // Elements, 1 to 2^32.
  uint64_t stride_bytes[kRank] = {};  // Multiples of 16 below 2^40; [0] is not read.
  uint32_t box[kRank] = {};           // Elements, 1 to 256; box[0] is swizzle_row_bytes().
  Swizzle swizzle = Swizzle::kNone;   // kNone: box[0] is any multiple of 8.
};

namespace detail {

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

inline EncodeTiled encode_tiled_function() {
#if defined(MINF_SIMT)
  return &cuTensorMapEncodeTiled;
#else
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  constexpr unsigned kIntroducedIn = 12000;
  MINF_CUDA(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kIntroducedIn,
                                             cudaEnableDefault, &found));
#else  // 12.4 has only the entry point of the runtime's own version.
  MINF_CUDA(
      cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found));
#endif
  if (found != cudaDriverEntryPointSuccess || function == nullptr) {
    minference::detail::throw_error(MINF_ERROR_DRIVER_TOO_OLD,
                                    "the driver has no cuTensorMapEncodeTiled (CUDA 12.0)");
  }
  return reinterpret_cast<EncodeTiled>(function);
#endif
}

}  // namespace detail

/// Encodes the map of `tile`. Elements outside the tensor, at negative coordinates too, are read as
/// zeros and not written. Touches no device memory; any thread may call it, with or without a
/// current device.
/// @throws Error{MINF_ERROR_CUDA} where `tile` breaks a rule above, MINF_ERROR_DRIVER_TOO_OLD.
template <int kRank>
CUtensorMap encode_tensor_map(const TensorTile<kRank>& tile) {
  static_assert(2 <= kRank && kRank <= 4);
  uint32_t element_strides[kRank];
  for (uint32_t& stride : element_strides) stride = 1;
  CUtensorMap map{};
  const CUresult result = detail::encode_tiled_function()(
      &map, CU_TENSOR_MAP_DATA_TYPE_UINT16, kRank, const_cast<void*>(tile.base), tile.sizes,
      tile.stride_bytes + 1, tile.box, element_strides, CU_TENSOR_MAP_INTERLEAVE_NONE,
      static_cast<CUtensorMapSwizzle>(tile.swizzle), CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    minference::detail::throw_error(
        MINF_ERROR_CUDA,
        minference::detail::concat("cuTensorMapEncodeTiled: CUresult ", static_cast<int>(result)));
  }
  return map;
}

/// Brings a map that the kernel will use into the cache. PTX ISA: prefetch.tensormap.
__device__ inline void prefetch_tensor_map(const CUtensorMap& map) {
#if defined(MINF_SIMT)
  simt::prefetch_tensor_map(&map);
#else
  asm volatile("prefetch.tensormap [%0];" : : "l"(&map) : "memory");
#endif
}

}  // namespace minference::arch
