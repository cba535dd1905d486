// Stage 3 with TMA: what the host hands to an attention kernel.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/backend.h"
#include "cuda/arch/tensor_map.h"
#include "cuda/common/attention_launch.h"

namespace minference::tma {

/// Boxes of 64 rows and a panel of dims. Coordinates: dim, row, head, batch entry.
struct AttentionMaps {
  CUtensorMap q;
  CUtensorMap k;
  CUtensorMap v;
  CUtensorMap out;
  CUtensorMap column_k;  // Gathered keys and values: the row is an entry of the column list, the
  CUtensorMap column_v;  // head a query head.
};

struct AttentionParams {
  AttentionMaps maps;
  RowValues lse;
  Sequences sequences;
  int32_t num_heads_q;
  int32_t group_size;
  float scale_log2;  // |softmax_scale| log2(e), or 1 where that is 0.
  float score_sign;  // 1, -1 or 0: the sign of softmax_scale.

  const HeadKeys* heads;  // [batch * num_heads_q]
  cuda::WorkTable table;
  unsigned long long* next_item;  // Items taken beyond the first of each block; 0 at the start.
};

}  // namespace minference::tma
