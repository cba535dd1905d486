// The sm80 backend's table, and on which GPUs it can be used.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/sm80/backend.h"

#include <string>

#include "core/check.h"
#include "cuda/machine.h"
#include "cuda/resources.h"
#include "cuda/sm80/stages.h"

#ifndef MINF_CUDA_ARCHITECTURES
#define MINF_CUDA_ARCHITECTURES "80-virtual"
#endif

namespace minference::sm80 {
namespace {

using cuda::Architecture;
using cuda::Machine;

constexpr Architecture kFirstArchitecture = 80;

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
  std::string text;
  bool too_old = true;
  for (int device = 0; device < static_cast<int>(machine.gpus.size()); ++device) {
    const Architecture gpu = machine.gpus[static_cast<std::size_t>(device)];
    if (serves(gpu)) return "";
    too_old = too_old && gpu < kFirstArchitecture;
    text += cuda::describe_gpu(machine, device) + ", ";
  }
  return text + need_text(too_old);
}

Availability availability() {
  const Machine& machine = cuda::machine();
  if (machine.status != MINF_OK) return {machine.status, machine.reason.c_str()};
  static const std::string kReason = not_served_text(machine);
  if (kReason.empty()) return {};
  return {MINF_ERROR_ARCH_NOT_BUILT, kReason.c_str()};
}

void check_device(int32_t device_index) {
  const Machine& machine = cuda::machine();
  const auto count = static_cast<int32_t>(machine.gpus.size());
  MINF_CHECK_ARG(device_index >= 0 && device_index < count, "device_index: expected 0 to ",
                 count - 1, ", got ", device_index);
  const Architecture gpu = machine.gpus[static_cast<std::size_t>(device_index)];
  if (serves(gpu)) return;
  detail::throw_error(MINF_ERROR_ARCH_NOT_BUILT,
                      detail::concat(cuda::describe_gpu(machine, device_index), ", ",
                                     need_text(gpu < kFirstArchitecture)));
}

/// A stage of stages.h with the executor's device current.
template <auto kStage, typename Args>
void on_device(const Args& args, const Executor& executor) {
  const cuda::CurrentDevice current(executor.device_index);
  kStage(args, executor);
}

template <auto kStage, typename Args>
void on_device_with_workspace(const Args& args, Workspace workspace, const Executor& executor) {
  const cuda::CurrentDevice current(executor.device_index);
  kStage(args, workspace, executor);
}

}  // namespace

const Backend& backend() {
  static constexpr Backend kBackend = {
      .name = "sm80",
      .device_type = MINF_DEVICE_CUDA,
      .serves_float32 = false,
      .row_alignment = 16,  // What one cp.async copies.
      .availability = availability,
      .check_device = check_device,
      .check_resources = cuda::check_resources,
      .estimate_vertical_slash_bytes = estimate_vertical_slash_bytes,
      .estimate_vertical_slash = on_device_with_workspace<estimate_vertical_slash>,
      .estimate_block_sparse_bytes = estimate_block_sparse_bytes,
      .estimate_block_sparse = on_device_with_workspace<estimate_block_sparse>,
      .plan_vertical_slash = on_device<plan_vertical_slash>,
      .count_key_tiles = on_device<count_key_tiles>,
      .fill_lists = [](std::span<int32_t> lists,
                       const Executor& executor) { on_device<fill_lists>(lists, executor); },
      .attention_bytes = attention_bytes,
      .attention = on_device_with_workspace<attention>,
      .merge_attention = on_device<merge_attention>,
  };
  return kBackend;
}

}  // namespace minference::sm80
