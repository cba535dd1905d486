// The sm90 backend's table, and on which GPUs it can be used.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>

#include "core/check.h"
#include "cuda/backends.h"
#include "cuda/machine.h"
#include "cuda/sm90/stages.h"

namespace minference::sm90 {
namespace {

using cuda::Architecture;
using cuda::Machine;

/// No GPU before it has wgmma, and none after it.
constexpr Architecture kArchitecture = 90;

/// By arithmetic (docs/hopper.md), 32 heads: at 4096 keys dense attention takes 0.23 ms (0.137
/// TFLOP at 600 TFLOP/s), the estimate 0.1 ms, and the tiles of (500, 700) 0.08 ms; at 2048 dense
/// takes 0.06 ms. Not measured: bench/PENDING.md.
constexpr int32_t kMinSparseSeqlen = 4096;

constexpr Estimator kEstimators[] = {
    cuda::kVerticalSlash<estimate_vertical_slash_bytes, estimate_vertical_slash>,
    cuda::kBlockSparse<block_sparse_kernels>,
};

std::string not_served_text(const Machine& machine) {
  return detail::concat(cuda::describe_gpus(machine), ", need sm_", kArchitecture);
}

Availability availability() {
  const Machine& machine = cuda::machine();
  if (machine.status != MINF_OK) return {machine.status, machine.reason.c_str()};
  // The stages that are sm80's own run here too.
  const Availability sm80 = sm80::backend().availability();
  if (sm80.status != MINF_OK) return sm80;
  if (std::ranges::find(machine.gpus, kArchitecture) != machine.gpus.end()) return {};
  static const std::string kReason = not_served_text(machine);
  return {MINF_ERROR_ARCH_NOT_BUILT, kReason.c_str()};
}

bool serves_device(int32_t device_index) {
  return cuda::architecture_of(cuda::machine(), device_index) == kArchitecture &&
         sm80::backend().serves_device(device_index);
}

void check_device(int32_t device_index) {
  if (serves_device(device_index)) return;
  sm80::backend().check_device(device_index);
  detail::throw_error(MINF_ERROR_ARCH_NOT_BUILT,
                      detail::concat(cuda::describe_gpu(cuda::machine(), device_index),
                                     ", need sm_", kArchitecture));
}

Backend make_backend() {
  Backend backend = sm80::backend();
  backend.name = "sm90";
  backend.min_sparse_seqlen = kMinSparseSeqlen;
  backend.availability = availability;
  backend.serves_device = serves_device;
  backend.check_device = check_device;
  backend.estimators = kEstimators;
  static const AttentionImplementation kAttention[] = {
      {.name = "sm90",
       .refuses = attention_refuses,
       .yields = attention_yields,
       .workspace_bytes = attention_bytes,
       .attend = cuda::on_device_with_workspace<attention, AttentionArgs>},
      backend.attention.front(),
  };
  backend.attention = kAttention;
  return backend;
}

}  // namespace

const Backend& backend() {
  static const Backend kBackend = make_backend();
  return kBackend;
}

}  // namespace minference::sm90
