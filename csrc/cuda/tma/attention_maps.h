// Stage 3 with TMA, the host side: the tensors of a call, as TMA sees them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/backend.h"
#include "cuda/common/gather_columns.h"
#include "cuda/tma/attention_params.h"
#include "cuda/tma/tensor_maps.h"

namespace minference::tma {

/// A tensor and its sizes, as TMA sees them.
struct MappedTensor {
  ConstTokens tensor;
  RowSizes sizes;
};

struct AttentionTensors {
  explicit AttentionTensors(const AttentionArgs& args);

  /// Whether TMA can address all of them.
  bool have_maps() const;

  /// keys, values: the gathered columns of the call. @throws Error as arch::encode_tensor_map().
  AttentionMaps maps(const cuda::GatheredRows& keys, const cuda::GatheredRows& values,
                     const PanelLayout& panel) const;

  MappedTensor q, k, v, out;
};

}  // namespace minference::tma
