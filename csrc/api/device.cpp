// The backend of a call, and its demands.
// SPDX-License-Identifier: Apache-2.0
#include "api/device.h"

#include <cstdint>
#include <vector>

#include "api/backends.h"
#include "core/check.h"

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
