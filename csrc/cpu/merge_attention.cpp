// Merging of two partial attentions on the CPU, row by row.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/isa/kernels.h"
#include "cpu/stages.h"

namespace minference::cpu {
namespace {

constexpr int32_t kRowsPerTask = 256;

struct Weights {
  float a;
  float b;
  float lse;
};

/// Weights of the two parts in their common softmax.
Weights weigh(float lse_a, float lse_b) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (lse_a == -kInfinity && lse_b == -kInfinity) return {0, 0, -kInfinity};
  const double max = std::max<double>(lse_a, lse_b);
  const double a = std::exp(lse_a - max), b = std::exp(lse_b - max);
  return {static_cast<float>(a / (a + b)), static_cast<float>(b / (a + b)),
          static_cast<float>(max + std::log(a + b))};
}

}  // namespace

void merge_attention(const MergeArgs& args, const Executor& executor) {
  const KernelTable& kernels = kernels_for(args.shape.dtype);
  const int64_t bytes = dtype_bytes(args.shape.dtype);
  const int32_t seqlen = args.shape.lengths.seqlen_q;
  const int64_t tasks_per_head = (seqlen + kRowsPerTask - 1) / kRowsPerTask;
  const int64_t heads = args.shape.num_heads_q;
  const auto row_of = [bytes](const auto& x, int64_t b, int64_t i, int64_t h) {
    return (b * x.batch_stride + i * x.token_stride + h * x.head_stride) * bytes;
  };
  const auto lse_of = [](const auto& x, int64_t b, int64_t i, int64_t h) {
    return x.data + b * x.batch_stride + h * x.head_stride + i * x.row_stride;
  };
  parallel_for(executor, args.shape.batch * heads * tasks_per_head, [&](int64_t task) {
    const int64_t b = task / tasks_per_head / heads;
    const int64_t h = task / tasks_per_head % heads;
    const int64_t begin = task % tasks_per_head * kRowsPerTask;
    for (int64_t i = begin; i < std::min<int64_t>(seqlen, begin + kRowsPerTask); ++i) {
      const Weights weights = weigh(*lse_of(args.lse_a, b, i, h), *lse_of(args.lse_b, b, i, h));
      kernels.merge_row(
          static_cast<const std::byte*>(args.out_a.data) + row_of(args.out_a, b, i, h), weights.a,
          static_cast<const std::byte*>(args.out_b.data) + row_of(args.out_b, b, i, h), weights.b,
          static_cast<std::byte*>(args.out.data) + row_of(args.out, b, i, h), args.shape.head_dim);
      *lse_of(args.lse, b, i, h) = weights.lse;
    }
  });
}

}  // namespace minference::cpu
