// Shared by the tests of Hopper's instructions: launches with as much shared memory as Hopper has,
// a storage struct as shared memory, tensor maps.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>
#include <simt/hopper.h>

#include "test.h"

namespace simt::test {

inline constexpr std::size_t kHopperSharedBytes = 227 * 1024;

template <typename Storage>
Storage& storage() {
  return *static_cast<Storage*>(dynamic_shared(sizeof(Storage), alignof(Storage)));
}

/// Launches one block of `threads` threads.
template <typename Storage, typename... Parameters>
void launch_block(unsigned threads, void (*kernel)(Parameters...),
                  std::type_identity_t<Parameters>... arguments) {
  options().max_shared_bytes = kHopperSharedBytes;
  CHECK(launch("hopper", dim3(1), dim3(threads), sizeof(Storage), nullptr, kernel, arguments...) ==
        cudaSuccess);
}

/// A tensor map of 16-bit elements: rows of `columns`, `stride_bytes` apart, in boxes of box_rows x
/// box_columns.
struct MatrixMap {
  void* base;
  cuuint64_t rows;
  cuuint64_t columns;
  cuuint64_t stride_bytes;
  cuuint32_t box_rows;
  cuuint32_t box_columns;
  CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_NONE;

  CUresult encode(CUtensorMap& map) const {
    const cuuint64_t sizes[2] = {columns, rows};
    const cuuint32_t box[2] = {box_columns, box_rows};
    const cuuint32_t ones[2] = {1, 1};
    return cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, base, sizes,
                                  &stride_bytes, box, ones, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                                  CU_TENSOR_MAP_L2_PROMOTION_NONE,
                                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  }
  CUtensorMap map() const {
    CUtensorMap result{};
    CHECK(encode(result) == CUDA_SUCCESS);
    return result;
  }
};

}  // namespace simt::test
