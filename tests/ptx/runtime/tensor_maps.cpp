// cuTensorMapEncodeTiled: the one driver function that programs need, linked or found through the
// runtime.
// SPDX-License-Identifier: Apache-2.0
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "errors.h"
#include "tensor_map.h"

namespace ptxsim::runtime {

static_assert(sizeof(cuuint64_t) == sizeof(u64));

PTXSIM_API CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type,
                                           cuuint32_t rank, void* base, const cuuint64_t* sizes,
                                           const cuuint64_t* strides, const cuuint32_t* box,
                                           const cuuint32_t* element_strides,
                                           CUtensorMapInterleave interleave,
                                           CUtensorMapSwizzle swizzle, CUtensorMapL2promotion,
                                           CUtensorMapFloatOOBfill fill) {
  const std::string broken =
      encode_tensor_map(map, {.type = static_cast<u32>(type),
                              .rank = rank,
                              .base = base,
                              .sizes = reinterpret_cast<const u64*>(sizes),
                              .strides = reinterpret_cast<const u64*>(strides),
                              .box = box,
                              .element_strides = element_strides,
                              .interleave = static_cast<u32>(interleave),
                              .swizzle = static_cast<u32>(swizzle),
                              .fill = static_cast<u32>(fill)});
  if (broken.empty()) return CUDA_SUCCESS;
  std::fprintf(stderr, "[ptxsim] cuTensorMapEncodeTiled: %s\n", broken.c_str());
  return CUDA_ERROR_INVALID_VALUE;
}

/// Programs look up driver functions by name.
PTXSIM_API cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned,
                                                        unsigned long long,
                                                        cudaDriverEntryPointQueryResult* found) {
  const bool is_known = std::strcmp(name, "cuTensorMapEncodeTiled") == 0;
  *function = is_known ? reinterpret_cast<void*>(&cuTensorMapEncodeTiled) : nullptr;
  if (found != nullptr) {
    *found = is_known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  }
  return cudaSuccess;
}

/// CUTLASS asks for the driver's version before it encodes.
PTXSIM_API CUresult cuDriverGetVersion(int* version) {
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}

}  // namespace ptxsim::runtime
