// The GPUs of this machine, and what a call brings to one of them. No CUDA header is needed to
// include this.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <charconv>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/backend.h"
#include "minference/minference.h"

namespace minference::cuda {

// ---- Architectures that a build has code for ----------------------------------------------------

/// A GPU's compute capability: 86 for 8.6.
using Architecture = int;

/// Whether code for one entry of CMAKE_CUDA_ARCHITECTURES runs on `gpu`: "86-real" (machine code:
/// the same major version, from 8.6 on), "90-virtual" (PTX: from 9.0 on), "86" (both). Other
/// entries that CMake accepts ("native", "90a") are assumed to fit.
inline bool entry_serves(std::string_view entry, Architecture gpu) {
  Architecture built = 0;
  const auto [end, error] = std::from_chars(entry.data(), entry.data() + entry.size(), built);
  const std::string_view kind = entry.substr(static_cast<std::size_t>(end - entry.data()));
  if (error != std::errc() || (!kind.empty() && kind != "-real" && kind != "-virtual")) return true;
  if (gpu < built) return false;
  return kind != "-real" || gpu / 10 == built / 10;
}

/// The same for a comma-separated list.
inline bool architectures_serve(std::string_view list, Architecture gpu) {
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    if (entry_serves(list.substr(0, comma), gpu)) return true;
    list.remove_prefix(comma == std::string_view::npos ? list.size() : comma + 1);
  }
  return false;
}

// ---- GPUs ---------------------------------------------------------------------------------------
//
// The GPUs of this machine, or why there are none. They are listed once per process, at the first
// call that needs to know, without creating a context; nothing happens when the library is loaded.

struct Machine {
  minf_status status = MINF_OK;  // Otherwise the error of a call that needs a GPU, ...
  std::string reason;            // ... and its reason.
  std::vector<Architecture> gpus;
};

const Machine& machine();

/// Number of multiprocessors of a GPU. @throws Error{MINF_ERROR_CUDA}
int num_multiprocessors(int device_index);

/// A GPU's architecture; 0 if there is none of that index.
Architecture architecture_of(const Machine& machine, int device_index);

/// "GPU 1 is sm_75"
std::string describe_gpu(const Machine& machine, int device_index);

/// "GPU 0 is sm_70, GPU 1 is sm_75"
std::string describe_gpus(const Machine& machine);

// ---- Resources of a call ------------------------------------------------------------------------
//
// A call brings memory and a stream, which must belong to the GPU; the GPU is the current device
// while the call enqueues.

/// Checks that memory and stream belong to executor.device_index. Managed and registered host
/// memory is accepted if the GPU can use the same address.
/// @throws Error{MINF_ERROR_WRONG_DEVICE, MINF_ERROR_WRONG_STREAM, MINF_ERROR_CUDA}
void check_resources(std::span<const NamedMemory> memory, const Executor& executor);

/// Makes a device current on this thread, and restores the previous one at the end. That one then
/// has a context even if it had none before: cudaSetDevice creates it since CUDA 12.
class CurrentDevice {
 public:
  /// @throws Error{MINF_ERROR_CUDA}
  explicit CurrentDevice(int device_index);
  ~CurrentDevice();
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int previous_ = 0;
  bool changed_ = false;
};

template <auto kStage, typename Args>
void on_device(const Args& args, const Executor& executor) {
  const CurrentDevice current(executor.device_index);
  kStage(args, executor);
}

template <auto kStage, typename Args>
void on_device_with_workspace(const Args& args, Workspace workspace, const Executor& executor) {
  const CurrentDevice current(executor.device_index);
  kStage(args, workspace, executor);
}

}  // namespace minference::cuda
