// Where a call runs: the backend of its tensors' device, and what that backend demands on top of
// the checks of tensor.h.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>

#include "api/tensor.h"
#include "core/backend.h"
#include "minference/minference.h"

namespace minference::api {

/// The backend that serves tensors on the device of `arg`, which is there and served.
const Backend& backend_of(const TensorArg& arg);

/// Checks dtype, and alignment of rows, of tensors whose rows a backend reads or writes.
/// @throws Error{MINF_ERROR_UNSUPPORTED}
void check_rows(const Backend& backend, std::initializer_list<TensorArg> args);

/// Checks that the memory of `args` (absent and empty ones have none), the workspace and the stream
/// are the device's own. The last check of a call.
void check_resources(const Backend& backend, const Executor& executor,
                     std::initializer_list<TensorArg> args, Workspace workspace = {},
                     Workspace index_memory = {});

}  // namespace minference::api
