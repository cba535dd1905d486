// Tensors as TMA sees them: [batch, heads, rows, dims] in boxes of some rows (64) and a
// panel of dims. Encoded for every call; nothing is kept.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/backend.h"
#include "core/pattern.h"
#include "cuda/arch/tensor_map.h"

namespace minference::tma {

struct RowSizes {
  int32_t dims;
  int32_t rows;
  int32_t heads;
  int32_t batch;
};

/// How many dims and rows a box has, and how it lies in shared memory: the kernel's traits.
struct PanelLayout {
  int32_t dims;
  arch::Swizzle swizzle;
  int32_t rows = kBlock;
};

/// Whether TMA can address the tensor: a dimension of several elements must not repeat one (stride
/// 0), and strides must be below 2^40 bytes. The checks of api/ for CUDA tensors are assumed.
bool has_tensor_map(const ConstTokens& tensor, const RowSizes& sizes);

/// @throws Error as arch::encode_tensor_map().
CUtensorMap tensor_map(const ConstTokens& tensor, const RowSizes& sizes, const PanelLayout& panel);

inline ConstTokens as_const(const Tokens& tensor) {
  return {tensor.data, tensor.batch_stride, tensor.token_stride, tensor.head_stride};
}

}  // namespace minference::tma
