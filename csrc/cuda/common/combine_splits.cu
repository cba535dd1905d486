// Combination of splits: see attention_launch.h.
//
//     lse = log(sum_s exp(lse_s))      out = sum_s exp(lse_s - lse) out_s
//
// One warp per row, parts in ascending order: the same bits every run. Bound by reading the parts;
// a call makes at most two for each block that runs at a time (attention.cu), some MiB.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>

#include "core/check.h"
#include "cuda/arch/element.h"
#include "cuda/arch/launch.h"
#include "cuda/arch/math.h"
#include "cuda/common/attention_launch.h"
#include "cuda/device/online_softmax.h"
#include "cuda/device/thread_group.h"

namespace minference::cuda {
namespace {

template <typename Element_>
struct CombineTraits {
  using Element = Element_;
  static constexpr int kThreads = 128;
  static constexpr int kWarps = kThreads / device::kWarpThreads;
};

/// Grid: batch * num_heads_q * seqlen_q rows, kWarps a block.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads)
    combine_splits_kernel(const __grid_constant__ CombineParams params) {
  const int lane = device::lane_index();
  const int64_t num_rows = int64_t{params.num_partial_heads} * params.lengths.seqlen_q;
  const int64_t row = int64_t{blockIdx.x} * Traits::kWarps + threadIdx.x / device::kWarpThreads;
  if (row >= num_rows) return;

  // 1. The largest lse, of which each lane looks at some parts, and the sum relative to it.
  float max = -INFINITY;
#pragma unroll 1  // One or two iterations: the compiler would unroll by four, for nothing.
  for (int32_t s = lane; s < params.num_splits; s += device::kWarpThreads) {
    max = fmaxf(max, params.partial.lse2[s * num_rows + row]);
  }
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    max = fmaxf(max, __shfl_xor_sync(device::kFullWarp, max, lanes));
  }
  if (max == -INFINITY) max = 0;  // No part attends a key: all weights become 0.
  float sum = 0;
  for (int32_t s = 0; s < params.num_splits; ++s) {
    sum += arch::exp2_approx(params.partial.lse2[s * num_rows + row] - max);
  }

  // 2. Two dims per lane.
  const int64_t head_idx = row / params.lengths.seqlen_q;
  const int64_t batch = head_idx / params.num_heads_q, head = head_idx % params.num_heads_q;
  const int64_t token = row % params.lengths.seqlen_q;
  auto* const out = static_cast<typename Traits::Element*>(params.out.data) +
                    batch * params.out.batch_stride + head * params.out.head_stride +
                    token * params.out.token_stride;
  const float factor = sum == 0 ? 0.0f : arch::reciprocal_approx(sum);
  for (int dim = 2 * lane; dim < params.head_dim_v; dim += 2 * device::kWarpThreads) {
    float low = 0, high = 0;
    for (int32_t s = 0; s < params.num_splits; ++s) {
      const int64_t part = s * num_rows + row;
      const float weight = arch::exp2_approx(params.partial.lse2[part] - max) * factor;
      const float* const values = params.partial.out + part * params.partial.dim_v + dim;
      // A part without keys holds zeros.
      low = fmaf(weight, values[0], low);
      high = fmaf(weight, values[1], high);
    }
    *reinterpret_cast<uint32_t*>(out + dim) =
        arch::pack_elements<typename Traits::Element>(low, high);
  }
  if (params.lse.data != nullptr && lane == 0) {
    params.lse.data[batch * params.lse.batch_stride + head * params.lse.head_stride +
                    token * params.lse.row_stride] = device::lse_of(device::lse2_of(max, sum));
  }
}

template <typename Traits>
void launch(const CombineParams& params, cudaStream_t stream) {
  const int64_t num_rows = int64_t{params.num_partial_heads} * params.lengths.seqlen_q;
  arch::launch("combine_splits", &combine_splits_kernel<Traits>,
               {dim3(static_cast<unsigned>((num_rows + Traits::kWarps - 1) / Traits::kWarps)),
                dim3(Traits::kThreads)},
               stream, params);
}

}  // namespace

void combine_splits(const CombineParams& params, DType dtype, cudaStream_t stream) {
  if (dtype == DType::kBFloat16) {
    launch<CombineTraits<arch::BFloat16>>(params, stream);
  } else {
    launch<CombineTraits<arch::Float16>>(params, stream);
  }
}

}  // namespace minference::cuda
