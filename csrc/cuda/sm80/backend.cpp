// The sm80 backend's table, and on which GPUs it can be used.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>

#include "core/check.h"
#include "cuda/backends.h"
#include "cuda/common/stages.h"
#include "cuda/machine.h"
#include "cuda/sm80/stages.h"

#ifndef MINF_CUDA_ARCHITECTURES
#define MINF_CUDA_ARCHITECTURES "80-virtual"
#endif

namespace minference::sm80 {
namespace {

using cuda::Architecture;
using cuda::Machine;

constexpr Architecture kFirstArchitecture = 80;

/// By arithmetic for an H200 (docs/cuda.md), 32 heads: at 4096 keys dense attention takes 0.41 ms
/// (0.137 TFLOP at 340 TFLOP/s), the estimate and its 14 launches 0.1 ms, and the tiles of (500,
/// 700), a third of all, 0.14 ms; at 2048 dense takes 0.1 ms, no more than the estimate alone. Not
/// measured: bench/PENDING.md.
constexpr int32_t kMinSparseSeqlen = 4096;

constexpr Estimator kEstimators[] = {
    cuda::kVerticalSlash<estimate_vertical_slash_bytes, estimate_vertical_slash>,
    cuda::kBlockSparse<block_sparse_kernels>,
};

bool serves(Architecture gpu) {
  return gpu >= kFirstArchitecture && cuda::architectures_serve(MINF_CUDA_ARCHITECTURES, gpu);
}

/// What GPUs are for which serves() says no.
std::string need_text(bool too_old) {
  if (too_old) return detail::concat("need sm_", kFirstArchitecture, " or newer");
  return "this build has code for " MINF_CUDA_ARCHITECTURES;
}

/// Why none of the machine's GPUs is served; empty if one is.
std::string not_served_text(const Machine& machine) {
  if (std::ranges::any_of(machine.gpus, serves)) return "";
  const bool too_old =
      std::ranges::all_of(machine.gpus, [](Architecture gpu) { return gpu < kFirstArchitecture; });
  return cuda::describe_gpus(machine) + ", " + need_text(too_old);
}

Availability availability() {
  const Machine& machine = cuda::machine();
  if (machine.status != MINF_OK) return {machine.status, machine.reason.c_str()};
  static const std::string kReason = not_served_text(machine);
  if (kReason.empty()) return {};
  return {MINF_ERROR_ARCH_NOT_BUILT, kReason.c_str()};
}

bool serves_device(int32_t device_index) {
  return serves(cuda::architecture_of(cuda::machine(), device_index));
}

void check_device(int32_t device_index) {
  const Machine& machine = cuda::machine();
  const auto count = static_cast<int32_t>(machine.gpus.size());
  MINF_CHECK_ARG(device_index >= 0 && device_index < count, "device_index: expected 0 to ",
                 count - 1, ", got ", device_index);
  const Architecture gpu = cuda::architecture_of(machine, device_index);
  if (serves(gpu)) return;
  detail::throw_error(MINF_ERROR_ARCH_NOT_BUILT,
                      detail::concat(cuda::describe_gpu(machine, device_index), ", ",
                                     need_text(gpu < kFirstArchitecture)));
}

constexpr AttentionImplementation kAttention[] = {
    {.name = "sm80",
     .refuses = [](const AttentionArgs&) { return ""; },
     .yields = [](const AttentionArgs&, const Executor&) { return ""; },
     .workspace_bytes = attention_bytes,
     .attend = cuda::on_device_with_workspace<attention, AttentionArgs>},
};

}  // namespace

const Backend& backend() {
  static constexpr Backend kBackend = {
      .name = "sm80",
      .device_type = MINF_DEVICE_CUDA,
      .serves_float32 = false,
      .row_alignment = 16,  // What one cp.async copies.
      .min_sparse_seqlen = kMinSparseSeqlen,
      .availability = availability,
      .serves_device = serves_device,
      .check_device = check_device,
      .check_resources = cuda::check_resources,
      .estimators = kEstimators,
      .plan_vertical_slash = cuda::on_device<cuda::plan_vertical_slash>,
      .count_key_tiles = cuda::on_device<cuda::count_key_tiles>,
      .fill_lists =
          [](std::span<int32_t> lists, const Executor& executor) {
            cuda::on_device<cuda::fill_lists>(lists, executor);
          },
      .attention = kAttention,
      .merge_attention = cuda::on_device<cuda::merge_attention>,
  };
  return kBackend;
}

}  // namespace minference::sm80
