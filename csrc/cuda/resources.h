// What a call brings to a GPU: memory and a stream that must be that GPU's own, and the device that
// is current while it enqueues.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "core/backend.h"

namespace minference::cuda {

/// Checks that memory and stream belong to executor.device_index. Managed and registered host
/// memory will do where the GPU can use the same address.
/// @throws Error{MINF_ERROR_WRONG_DEVICE, MINF_ERROR_WRONG_STREAM, MINF_ERROR_CUDA}
void check_resources(std::span<const NamedMemory> memory, const Executor& executor);

/// Makes a device current on this thread, and at the end the one that was, which then has a context
/// if it had none: so it is with cudaSetDevice since CUDA 12.
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

}  // namespace minference::cuda
