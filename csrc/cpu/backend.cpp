// The CPU backend's table. The backend is always available: the portable kernels run anywhere.
// SPDX-License-Identifier: Apache-2.0
#include "cpu/backend.h"

#include <algorithm>
#include <cstdint>
#include <span>

#include "cpu/stages.h"

namespace minference::cpu {
namespace {

/// `bench.cpu_attention --only short`, 8 heads, bf16, 2 cores of an Intel Xeon with AVX-512: a
/// whole call of (500, 700) is 0.8 times as fast as a dense one at 1024 keys, 1.3 times at
/// 2048, 1.8 times at 4096; one of (1000, 6096) breaks even at 8192.
constexpr int32_t kMinSparseSeqlen = 2048;

constexpr Estimator kEstimators[] = {
    kVerticalSlashEstimator<estimate_vertical_slash_bytes, estimate_vertical_slash>,
    kBlockSparseEstimator<estimate_block_sparse_bytes, estimate_block_sparse>,
};

constexpr AttentionImplementation kAttention[] = {
    {.name = "cpu",
     .refuses = [](const AttentionArgs&) { return ""; },
     .yields = [](const AttentionArgs&, const Executor&) { return ""; },
     .workspace_bytes = attention_bytes,
     .attend = attention},
};

}  // namespace

const Backend& backend() {
  static constexpr Backend kBackend = {
      .name = "cpu",
      .device_type = MINF_DEVICE_CPU,
      .serves_float32 = true,
      .row_alignment = 1,
      .min_sparse_seqlen = kMinSparseSeqlen,
      .availability = [] { return Availability{}; },
      .serves_device = [](int32_t) { return true; },
      .check_device = [](int32_t) {},
      .check_resources = [](std::span<const NamedMemory>, const Executor&) {},
      .estimators = kEstimators,
      .plan_vertical_slash = plan_vertical_slash,
      .count_key_tiles = count_key_tiles,
      .fill_lists = [](std::span<int32_t> lists, const Executor&) { std::ranges::fill(lists, -1); },
      .attention = kAttention,
      .merge_attention = merge_attention,
  };
  return kBackend;
}

}  // namespace minference::cpu
