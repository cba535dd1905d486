// The ordered list of backends, the choice among them and among the implementations of one, and
// what a backend demands of tensors beyond the checks of tensor.h.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>

#include "api/tensor.h"
#include "core/backend.h"
#include "minference/minference.h"

namespace minference {

/// The backend's estimator for patterns of this kind. @throws Error{MINF_ERROR_UNSUPPORTED}
const Estimator& estimator_of(const Backend& backend, int32_t kind);

/// All built backends, most specific first.
std::span<const Backend* const> backends();

/// The backend that serves tensors on this device: the first that can be used and has code for it.
/// @throws Error if no backend can be used, with the status of the most general one that was built,
/// and the reasons of all; if none has code for the device, what the most general one says.
const Backend& select_backend(minf_device_type device_type, int32_t device_index);

/// Makes select_backend() return the backend of this name for all devices of its kind; an empty
/// name ends that. @throws Error if there is no such backend, or it cannot be used.
void force_backend(std::string_view name);
bool is_forced(const Backend& backend);

/// Work memory of stage 3, whichever implementation will serve the call.
std::size_t attention_bytes(const Backend& backend, const AttentionArgs& args,
                            const Executor& executor);

/// Stage 3 by the implementation that serves the call.
void attend(const Backend& backend, const AttentionArgs& args, Workspace workspace,
            const Executor& executor);

/// Why an implementation of the backend would not serve the call if it were the first in the list;
/// empty if it would.
const char* why_not(const Backend& backend, const AttentionImplementation& implementation,
                    const AttentionArgs& args, const Executor& executor);

}  // namespace minference

namespace minference::api {

/// The backend that serves tensors on the device of `arg`. @throws Error as select_backend()
const Backend& backend_of(const TensorArg& arg);

/// Checks the dtype and the alignment of rows of tensors whose rows the backend reads or writes.
/// @throws Error{MINF_ERROR_UNSUPPORTED}
void check_rows(const Backend& backend, std::initializer_list<TensorArg> args);

/// Checks that the memory of `args` (absent and empty ones have none), the workspace and the stream
/// are the device's own. The last check of a call.
void check_resources(const Backend& backend, const Executor& executor,
                     std::initializer_list<TensorArg> args, Workspace workspace = {},
                     Workspace index_memory = {});

}  // namespace minference::api
