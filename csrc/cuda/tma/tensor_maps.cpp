// See tensor_maps.h.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/tma/tensor_maps.h"

namespace minference::tma {
namespace {

constexpr int64_t kElementBytes = 2;

bool has_stride(int64_t stride, int32_t size) {
  constexpr int64_t kEnd = int64_t{1} << 40;
  return size == 1 || (stride > 0 && stride < kEnd / kElementBytes);
}

/// If a dimension has one element, the tensor's stride may be anything; then this returns a row's
/// size, the least that the driver's documentation allows: it is a multiple of 16 bytes.
uint64_t stride_bytes(int64_t stride, int32_t size, int32_t dims) {
  return static_cast<uint64_t>((size == 1 ? dims : stride) * kElementBytes);
}

}  // namespace

bool has_tensor_map(const ConstTokens& tensor, const RowSizes& sizes) {
  return has_stride(tensor.token_stride, sizes.rows) &&
         has_stride(tensor.head_stride, sizes.heads) &&
         has_stride(tensor.batch_stride, sizes.batch);
}

CUtensorMap tensor_map(const ConstTokens& tensor, const RowSizes& sizes, const PanelLayout& panel) {
  return arch::encode_tensor_map<4>(
      {.base = tensor.data,
       .sizes = {static_cast<uint64_t>(sizes.dims), static_cast<uint64_t>(sizes.rows),
                 static_cast<uint64_t>(sizes.heads), static_cast<uint64_t>(sizes.batch)},
       .stride_bytes = {0, stride_bytes(tensor.token_stride, sizes.rows, sizes.dims),
                        stride_bytes(tensor.head_stride, sizes.heads, sizes.dims),
                        stride_bytes(tensor.batch_stride, sizes.batch, sizes.dims)},
       .box = {static_cast<uint32_t>(panel.dims), static_cast<uint32_t>(panel.rows), 1, 1},
       .swizzle = panel.swizzle});
}

}  // namespace minference::tma
