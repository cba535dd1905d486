// A backend's stages, called with the executor's device current.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/backend.h"
#include "cuda/resources.h"

namespace minference::cuda {

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
