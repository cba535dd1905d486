// The ordered list of backends, the choices, and the demands: see backends.h.
// SPDX-License-Identifier: Apache-2.0
#include "api/backends.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "core/check.h"
#include "cpu/backend.h"
#include "cuda/backends.h"

namespace minference {
namespace {

std::atomic<const Backend*> forced_backend = nullptr;

}  // namespace

std::span<const Backend* const> backends() {
  static const Backend* const kBackends[] = {&sm90::backend(), &sm80::backend(), &cpu::backend()};
  return kBackends;
}

const Backend& select_backend(minf_device_type device_type, int32_t device_index) {
  const Backend* const forced = forced_backend.load(std::memory_order_acquire);
  if (forced != nullptr && forced->device_type == device_type) {
    forced->check_device(device_index);
    return *forced;
  }
  minf_status status = MINF_ERROR_UNSUPPORTED;
  std::string reasons, last_reason;
  const Backend* usable = nullptr;  // The most general one.
  for (const Backend* backend : backends()) {
    if (backend->device_type != device_type) continue;
    const Availability availability = backend->availability();
    if (availability.status == MINF_OK) {
      if (backend->serves_device(device_index)) return *backend;
      usable = backend;
      continue;
    }
    status = availability.status;
    // "sm90, sm80: why neither", "sm90: why; sm80: why".
    if (last_reason == availability.reason) {
      reasons.resize(reasons.size() - detail::concat(": ", last_reason).size());
      reasons += ", ";
    } else {
      reasons += reasons.empty() ? " " : "; ";
    }
    last_reason = availability.reason;
    reasons += detail::concat(backend->name, ": ", last_reason);
  }
  if (usable != nullptr) {
    usable->check_device(device_index);  // Says what it lacks.
    return *usable;
  }
  if (reasons.empty()) reasons = " this build has none";
  detail::throw_error(
      status,
      detail::concat("q: no backend serves tensors on ",
                     device_type == MINF_DEVICE_CPU ? "the CPU" : "CUDA devices", ":", reasons));
}

const Estimator& estimator_of(const Backend& backend, int32_t kind) {
  for (const Estimator& estimator : backend.estimators) {
    if (estimator.kind == kind) return estimator;
  }
  detail::throw_error(MINF_ERROR_UNSUPPORTED,
                      detail::concat("patterns: the ", backend.name, " backend does not estimate ",
                                     pattern_info(kind).name, " heads"));
}

void force_backend(std::string_view name) {
  if (name.empty()) return forced_backend.store(nullptr, std::memory_order_release);
  std::string names;
  for (const Backend* backend : backends()) {
    names += detail::concat(names.empty() ? "" : ", ", backend->name);
    if (backend->name != name) continue;
    const Availability availability = backend->availability();
    if (availability.status != MINF_OK) {
      detail::throw_error(availability.status,
                          detail::concat("backend ", name, ": ", availability.reason));
    }
    return forced_backend.store(backend, std::memory_order_release);
  }
  detail::throw_error(MINF_ERROR_INVALID_ARGUMENT,
                      detail::concat("backend: expected one of ", names, ", got ", name));
}

bool is_forced(const Backend& backend) {
  return forced_backend.load(std::memory_order_acquire) == &backend;
}

const char* why_not(const Backend& backend, const AttentionImplementation& implementation,
                    const AttentionArgs& args, const Executor& executor) {
  if (const char* const reason = implementation.refuses(args); *reason != '\0') return reason;
  const bool may_yield = &implementation != &backend.attention.back() && !is_forced(backend);
  return may_yield ? implementation.yields(args, executor) : "";
}

std::size_t attention_bytes(const Backend& backend, const AttentionArgs& args,
                            const Executor& executor) {
  std::size_t bytes = 0;
  for (const AttentionImplementation& implementation : backend.attention) {
    const bool may_yield = &implementation != &backend.attention.back() && !is_forced(backend);
    if (may_yield && *implementation.yields(args, executor) != '\0') continue;
    // It may still refuse, for what is not known yet.
    bytes = std::max(bytes, implementation.workspace_bytes(args, executor));
  }
  return bytes;
}

void attend(const Backend& backend, const AttentionArgs& args, Workspace workspace,
            const Executor& executor) {
  const auto serves = [&](const AttentionImplementation& implementation) {
    return *why_not(backend, implementation, args, executor) == '\0';
  };
  const auto found = std::ranges::find_if(backend.attention, serves);
  MINF_ASSERT(found != backend.attention.end());
  found->attend(args, workspace, executor);
}

}  // namespace minference

namespace minference::api {
namespace {

const char* device_name(const Backend& backend) {
  return backend.device_type == MINF_DEVICE_CPU ? "the CPU" : "CUDA devices";
}

template <typename... Args>
[[noreturn]] void throw_unsupported(const Args&... args) {
  detail::throw_error(MINF_ERROR_UNSUPPORTED, detail::concat(args...));
}

void check_row_alignment(const TensorArg& arg, const Backend& backend) {
  if (arg.empty()) return;
  const int64_t bytes = backend.row_alignment;
  for (int dim = 0; dim + 1 < arg.tensor->ndim; ++dim) {
    if (arg.stride(dim) * arg.element_bytes() % bytes == 0) continue;
    throw_unsupported(arg.name, ": expected rows aligned to ", bytes, " bytes on ",
                      device_name(backend), ", strides that are multiples of ",
                      bytes / arg.element_bytes(), " elements, got stride ", arg.stride(dim),
                      " in dimension ", dim);
  }
  if (reinterpret_cast<std::uintptr_t>(arg.tensor->data) % static_cast<std::uintptr_t>(bytes) !=
      0) {
    throw_unsupported(arg.name, ": expected rows aligned to ", bytes, " bytes on ",
                      device_name(backend), ", got data at address ", arg.tensor->data);
  }
}

}  // namespace

const Backend& backend_of(const TensorArg& arg) {
  return select_backend(static_cast<minf_device_type>(arg.tensor->device_type),
                        arg.tensor->device_index);
}

void check_rows(const Backend& backend, std::initializer_list<TensorArg> args) {
  for (const TensorArg& arg : args) {
    if (arg.tensor->dtype == MINF_FLOAT32 && !backend.serves_float32) {
      throw_unsupported(arg.name, ": expected dtype bfloat16 or float16 on ", device_name(backend),
                        ", got float32");
    }
    check_row_alignment(arg, backend);
  }
}

void check_resources(const Backend& backend, const Executor& executor,
                     std::initializer_list<TensorArg> args, Workspace workspace,
                     Workspace index_memory) {
  std::vector<NamedMemory> memory;
  memory.reserve(args.size() + 2);
  for (const TensorArg& arg : args) {
    if (!arg.empty()) memory.push_back({arg.name, arg.tensor->data});
  }
  if (!workspace.empty()) memory.push_back({"workspace", workspace.data()});
  if (!index_memory.empty()) memory.push_back({"index_memory", index_memory.data()});
  backend.check_resources(memory, executor);
}

}  // namespace minference::api
