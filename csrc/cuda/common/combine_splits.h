// Stage 3, small calls: attention over parts of the keys becomes attention over all.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/backend.h"
#include "cuda/arch/emulation.h"

namespace minference::cuda {

/// Results of parts of the keys, [num_splits][batch * num_heads_q][seqlen_q], before they are
/// combined.
struct PartialResults {
  float* out;   // [...][dim_v]
  float* lse2;  // log2 of the sum of exponentials; -inf: no key.
  int32_t dim_v;
};

struct CombineParams {
  Tokens out;
  RowValues lse;
  Lengths lengths;
  int32_t num_heads_q;
  int32_t head_dim_v;
  int32_t num_splits;         // Parts of the keys.
  int32_t num_partial_heads;  // batch * num_heads_q
  PartialResults partial;
};

/// Enqueues the combination of partial results into out and lse: one kernel.
void combine_splits(const CombineParams& params, DType dtype, cudaStream_t stream);

}  // namespace minference::cuda
