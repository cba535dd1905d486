// Compares sm90's tensor_map() with CuTe's make_tma_copy() for the same tensor and box, by what
// each asks the driver for: both look up cuTensorMapEncodeTiled through the runtime, which this
// file replaces.
// SPDX-License-Identifier: Apache-2.0

// CuTe has tensor maps only if nvcc claims to be new enough.
#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0

#include <cuda.h>
#include <cuda_runtime.h>
#include <cutlass/numeric_types.h>
// clang-format off: the second header needs the first.
#include <cute/tensor.hpp>
#include <cute/atom/copy_traits_sm90_tma.hpp>
// clang-format on

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <type_traits>

#include "cuda/tma/tensor_maps.h"
#include "panels.h"

// ---- The runtime: one driver function, which writes its arguments down --------------------------

namespace {

struct Request {
  CUtensorMapDataType type;
  unsigned rank;
  const void* base;
  uint64_t sizes[5], stride_bytes[4];
  uint32_t box[5], element_strides[5];
  CUtensorMapInterleave interleave;
  CUtensorMapSwizzle swizzle;
  CUtensorMapL2promotion l2_promotion;
  CUtensorMapFloatOOBfill fill;
};
Request last_request;

CUresult encode_tiled(CUtensorMap*, CUtensorMapDataType type, cuuint32_t rank, void* base,
                      const cuuint64_t* sizes, const cuuint64_t* stride_bytes,
                      const cuuint32_t* box, const cuuint32_t* element_strides,
                      CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                      CUtensorMapL2promotion l2_promotion, CUtensorMapFloatOOBfill fill) {
  last_request = {type, rank, base, {}, {}, {}, {}, interleave, swizzle, l2_promotion, fill};
  for (unsigned i = 0; i < rank; ++i) {
    last_request.sizes[i] = sizes[i];
    last_request.box[i] = box[i];
    last_request.element_strides[i] = element_strides[i];
    if (i + 1 < rank) last_request.stride_bytes[i] = stride_bytes[i];
  }
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned,
                                                        unsigned long long,
                                                        cudaDriverEntryPointQueryResult* result) {
  const bool found = std::strcmp(name, "cuTensorMapEncodeTiled") == 0;
  *function = found ? reinterpret_cast<void*>(&encode_tiled) : nullptr;
  *result = found ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
// For error messages.
extern "C" cudaError_t cudaGetLastError() { return cudaSuccess; }
extern "C" const char* cudaGetErrorName(cudaError_t) { return "error"; }
extern "C" const char* cudaGetErrorString(cudaError_t) { return "error"; }

// ---- The comparison -----------------------------------------------------------------------------

namespace judges {
namespace {

using cute::Int;
using cute::Shape;
using Element = cutlass::bfloat16_t;
namespace gmma = cute::SM90::GMMA;

int compared = 0;
int different = 0;

template <typename Value>
bool same(const char* what, unsigned dimension, Value project, Value cute_value) {
  ++compared;
  if (project == cute_value) return true;
  if (different++ < 10) {
    std::printf("%s[%u]: project %llu, CuTe %llu\n", what, dimension,
                static_cast<unsigned long long>(project),
                static_cast<unsigned long long>(cute_value));
  }
  return false;
}

/// Differences with a reason (README.md) are expected as they are, not ignored.
void compare(const Request& project, const Request& cute_request) {
  same("rank", 0, project.rank, cute_request.rank);
  same("base", 0, reinterpret_cast<uintptr_t>(project.base),
       reinterpret_cast<uintptr_t>(cute_request.base));
  same("interleave", 0, project.interleave, cute_request.interleave);
  same("swizzle", 0, project.swizzle, cute_request.swizzle);
  same("fill", 0, project.fill, cute_request.fill);
  for (unsigned i = 0; i < project.rank; ++i) {
    same("size", i, project.sizes[i], cute_request.sizes[i]);
    same("box", i, project.box[i], cute_request.box[i]);
    same("element stride", i, project.element_strides[i], cute_request.element_strides[i]);
    // Nothing reads the stride of a dimension of one element.
    if (i > 0 && project.sizes[i] > 1) {
      same("stride", i, project.stride_bytes[i - 1], cute_request.stride_bytes[i - 1]);
    }
  }
  same("type of the project", 0, project.type, CU_TENSOR_MAP_DATA_TYPE_UINT16);
  same("type of CuTe", 0, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, cute_request.type);
  same("L2 promotion of the project", 0, project.l2_promotion, CU_TENSOR_MAP_L2_PROMOTION_L2_256B);
  same("L2 promotion of CuTe", 0, CU_TENSOR_MAP_L2_PROMOTION_L2_128B, cute_request.l2_promotion);
}

struct TensorCase {
  minference::tma::RowSizes sizes;
  bool heads_first;  // [batch, heads, rows, dims], else [batch, rows, heads, dims].
};

template <int kDims, int kRows>
void check(const TensorCase& tensor, const Panel& panel) {
  const auto& [dims, rows, heads, batch] = tensor.sizes;
  auto* const data = reinterpret_cast<Element*>(uintptr_t{1} << 28);
  const int64_t row_stride = int64_t{tensor.heads_first ? 1 : heads} * dims;
  const int64_t head_stride = int64_t{tensor.heads_first ? rows : 1} * dims;
  const int64_t batch_stride = int64_t{rows} * heads * dims;
  minference::ConstTokens tokens = {};
  tokens.data = data;
  tokens.batch_stride = batch_stride;
  tokens.token_stride = row_stride;
  tokens.head_stride = head_stride;
  minference::tma::tensor_map(
      tokens, tensor.sizes,
      {panel.dims, static_cast<minference::arch::Swizzle>(panel.swizzle), panel.rows});
  const Request project = last_request;

  const auto global = cute::make_tensor(
      cute::make_gmem_ptr(data),
      cute::make_layout(cute::make_shape(rows, dims, heads, batch),
                        cute::make_stride(row_stride, cute::_1{}, head_stride, batch_stride)));
  using Atom = std::conditional_t<kDims == 64, gmma::Layout_K_SW128_Atom<Element>,
                                  gmma::Layout_K_SW64_Atom<Element>>;
  const auto shared = cute::tile_to_shape(Atom{}, Shape<Int<kRows>, Int<kDims>>{});
  cute::make_tma_copy(cute::SM90_TMA_LOAD{}, global, shared);
  compare(project, last_request);
  cute::make_tma_copy(cute::SM90_TMA_STORE{}, global, shared);
  compare(project, last_request);
}

void check(const TensorCase& tensor, const Panel& panel) {
  if (panel.dims == 64 && panel.rows == 64) return check<64, 64>(tensor, panel);
  if (panel.dims == 32 && panel.rows == 64) return check<32, 64>(tensor, panel);
  if (panel.dims == 64 && panel.rows == 16) return check<64, 16>(tensor, panel);
  std::printf("no comparison for panels of %d dims and %d rows\n", panel.dims, panel.rows);
  ++different;
}

bool check_all() {
  for (const Panel& panel : panels()) {
    for (const bool heads_first : {false, true}) {
      for (const int dims : {40, 64, 72, 80, 96, 128, 136, 192, 256}) {
        for (const int rows : {1, 63, 64, 1000, 131072}) {
          for (const int heads : {1, 8, 32}) {
            for (const int batch : {1, 3}) check({{dims, rows, heads, batch}, heads_first}, panel);
          }
        }
      }
    }
  }
  std::printf("arguments of tensor maps: %d compared, %d different\n", compared, different);
  return compared > 0 && different == 0;
}

}  // namespace
}  // namespace judges

int main() { return judges::check_all() ? 0 : 1; }
