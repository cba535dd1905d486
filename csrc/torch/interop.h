// torch <-> minference.h: tensors become views, torch's thread pool runs the tasks, a status
// becomes the exception that torch hands to Python. Stable ABI only: one binary for torch 2.11 and
// later.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/DeviceType.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "minference/minference.h"

// Torch's own where torch has CUDA, else null; its header declares it for CUDA builds only.
extern "C" __attribute__((weak)) int32_t aoti_torch_get_current_cuda_stream(int32_t device_index,
                                                                            void** stream);

namespace minference::torch_ops {

using torch::stable::Tensor;

// ---- Errors --------------------------------------------------------------------------------

/// What the text of an op's error begins with. minference._library chooses the Python type by it,
/// because every exception that crosses the stable ABI arrives as RuntimeError: its table
/// EXCEPTIONS lists the same prefixes.
inline const char* status_prefix(minf_status status) {
  switch (status) {
    case MINF_ERROR_INVALID_ARGUMENT:
      return "minference: invalid argument: ";
    case MINF_ERROR_UNSUPPORTED:
      return "minference: unsupported: ";
    case MINF_ERROR_OUT_OF_MEMORY:
      return "minference: out of memory: ";
    case MINF_ERROR_NO_DEVICE:
      return "minference: no device: ";
    case MINF_ERROR_DRIVER_TOO_OLD:
      return "minference: driver too old: ";
    case MINF_ERROR_ARCH_NOT_BUILT:
      return "minference: architecture not built: ";
    case MINF_ERROR_WRONG_DEVICE:
      return "minference: wrong device: ";
    case MINF_ERROR_WRONG_STREAM:
      return "minference: wrong stream: ";
    case MINF_ERROR_LAUNCH_FAILED:
      return "minference: launch failed: ";
    case MINF_ERROR_CUDA:
      return "minference: CUDA: ";
    default:
      return "minference: ";
  }
}

/// Throws what STD_TORCH_CHECK throws, without the path of this file in the text.
template <typename... Args>
[[noreturn]] void throw_status(minf_status status, const Args&... args) {
  std::ostringstream text;
  text << status_prefix(status);
  (text << ... << args);
  throw std::runtime_error(std::move(text).str());
}

inline void check(minf_status status) {
  if (status != MINF_OK) throw_status(status, minf_last_error());
}

/// A size of the C surface, which is an int32 where torch's is an int64.
inline int32_t size_argument(int64_t value, const char* name) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  if (value < 0 || value > kMax) {
    throw_status(MINF_ERROR_INVALID_ARGUMENT, name, ": expected 0 to ", kMax, ", got ", value);
  }
  return static_cast<int32_t>(value);
}

inline void check_rank(const Tensor& tensor, int64_t rank, const char* name) {
  if (tensor.dim() != rank) {
    throw_status(MINF_ERROR_INVALID_ARGUMENT, name, ": expected ", rank, " dimensions, got ",
                 tensor.dim());
  }
}

// ---- Tensors -------------------------------------------------------------------------------

namespace detail {

inline minf_dtype dtype_of(const Tensor& tensor, const char* name) {
  using torch::headeronly::ScalarType;
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return MINF_FLOAT32;
    case ScalarType::BFloat16:
      return MINF_BFLOAT16;
    case ScalarType::Half:
      return MINF_FLOAT16;
    case ScalarType::Int:
      return MINF_INT32;
    case ScalarType::Long:
      return MINF_INT64;
    default:
      throw_status(MINF_ERROR_INVALID_ARGUMENT, name,
                   ": expected float32, bfloat16 or float16 (indices: int32), got dtype ",
                   torch::headeronly::toString(tensor.scalar_type()));
  }
}

inline minf_device_type device_type_of(const Tensor& tensor, const char* name) {
  if (tensor.is_cpu()) return MINF_DEVICE_CPU;
  if (tensor.is_cuda()) return MINF_DEVICE_CUDA;
  throw_status(MINF_ERROR_UNSUPPORTED, name, ": expected a CPU or CUDA tensor, got device type ",
               static_cast<int>(tensor.device().type()));
}

inline minf_tensor view_with_data(const Tensor& tensor, void* data, const char* name) {
  const int64_t rank = tensor.dim();
  if (rank < 1 || rank > MINF_MAX_DIMS) {  // A view of rank 0 would say that the tensor is absent.
    throw_status(MINF_ERROR_INVALID_ARGUMENT, name, ": expected 1 to ", int{MINF_MAX_DIMS},
                 " dimensions, got ", rank);
  }
  minf_tensor view{};
  view.data = data;
  view.dtype = dtype_of(tensor, name);
  view.device_type = device_type_of(tensor, name);
  view.device_index = tensor.is_cuda() ? tensor.get_device_index() : 0;
  view.ndim = static_cast<int32_t>(rank);
  std::copy_n(tensor.sizes().data(), rank, view.shape);
  std::copy_n(tensor.strides().data(), rank, view.stride);
  return view;
}

}  // namespace detail

/// Borrows `tensor`; `name` is the argument's, for error texts. Reading does not unshare a
/// copy-on-write tensor, hence the const access and the cast.
inline minf_tensor view_of(const Tensor& tensor, const char* name) {
  return detail::view_with_data(tensor, const_cast<void*>(tensor.const_data_ptr()), name);
}

inline minf_tensor mutable_view_of(const Tensor& tensor, const char* name) {
  return detail::view_with_data(tensor, tensor.mutable_data_ptr(), name);
}

/// Contiguous and uninitialised, on the device of `like`.
inline Tensor empty_on(const Tensor& like, const std::vector<int64_t>& sizes,
                       torch::headeronly::ScalarType dtype) {
  try {
    return torch::stable::empty(sizes, dtype, std::nullopt, like.device());
  } catch (const std::runtime_error&) {  // Its text names a shim function, not the cause.
    std::ostringstream shape;
    for (const int64_t size : sizes) shape << (shape.tellp() > 0 ? ", " : "") << size;
    throw_status(MINF_ERROR_OUT_OF_MEMORY, "torch cannot allocate ",
                 torch::headeronly::toString(dtype), " [", shape.str(), "]");
  }
}

/// Work memory of one call, from torch's allocator.
class Workspace {
 public:
  Workspace(const Tensor& like, std::size_t bytes)
      : memory_(empty_on(like, {static_cast<int64_t>(bytes)}, torch::headeronly::ScalarType::Byte)),
        bytes_(bytes) {}
  void* data() const { return memory_.mutable_data_ptr(); }
  std::size_t bytes() const { return bytes_; }

 private:
  Tensor memory_;
  std::size_t bytes_;
};

/// Reads the rows of a CPU tensor by minf_pattern_from_numbers(). Rows are float64 with 8 columns,
/// zeros at their ends; or int32 with 4, where zeros at the end mean the defaults.
inline std::vector<minf_pattern> patterns_of(const Tensor& tensor) {
  using torch::headeronly::ScalarType;
  check_rank(tensor, 2, "patterns");
  const bool is_double = tensor.scalar_type() == ScalarType::Double;
  if (!tensor.is_cpu() || (!is_double && tensor.scalar_type() != ScalarType::Int)) {
    throw_status(MINF_ERROR_INVALID_ARGUMENT,
                 "patterns: expected a float64 or an int32 tensor on the CPU, got ",
                 torch::headeronly::toString(tensor.scalar_type()),
                 tensor.is_cpu() ? "" : " on another device");
  }
  const int64_t num_columns = is_double ? 8 : 4;
  if (tensor.size(1) != num_columns) {
    throw_status(MINF_ERROR_INVALID_ARGUMENT, "patterns: expected ", num_columns,
                 " columns (kind and fields, ", is_double ? "float64" : "int32", "), got ",
                 tensor.size(1));
  }
  const void* const data = tensor.const_data_ptr();
  std::vector<minf_pattern> patterns(static_cast<std::size_t>(tensor.size(0)));
  patterns.reserve(1);  // Never null, so that the library's error names the number it expected.
  for (std::size_t row = 0; row < patterns.size(); ++row) {
    double numbers[8];
    for (int64_t column = 0; column < num_columns; ++column) {
      const int64_t place =
          static_cast<int64_t>(row) * tensor.stride(0) + column * tensor.stride(1);
      numbers[column] = is_double ? static_cast<const double*>(data)[place]
                                  : static_cast<const int32_t*>(data)[place];
    }
    int64_t count = num_columns;
    while (!is_double && count > 1 && numbers[count - 1] == 0) --count;
    const minf_status status = minf_pattern_from_numbers(numbers, count, &patterns[row]);
    if (status != MINF_OK) throw_status(status, "patterns[", row, "]: ", minf_last_error());
  }
  return patterns;
}

// ---- Execution -----------------------------------------------------------------------------

/// minf_parallel_for on torch's pool, so that a process has one. Workers draw tasks from a counter:
/// torch alone would give each thread one contiguous share, and the longest tasks come first.
inline void parallel_for(int64_t num_tasks, minf_task task, void* task_context, void* /*context*/) {
  std::atomic<int64_t> next{0};
  const int64_t num_workers =
      std::min(num_tasks, static_cast<int64_t>(torch::stable::get_num_threads()));
  torch::stable::parallel_for(0, num_workers, /*grain_size=*/1, [&](int64_t, int64_t) {
    for (int64_t i = next.fetch_add(1, std::memory_order_relaxed); i < num_tasks;
         i = next.fetch_add(1, std::memory_order_relaxed)) {
      task(i, task_context);
    }
  });
}

/// The stream on which torch, on this thread, enqueues work for a GPU.
inline void* current_cuda_stream(int32_t device_index) {
  void* stream = nullptr;
  if (aoti_torch_get_current_cuda_stream == nullptr ||
      aoti_torch_get_current_cuda_stream(device_index, &stream) != 0) {
    throw_status(MINF_ERROR_CUDA, "torch has no current stream for cuda:", device_index);
  }
  return stream;
}

/// How to run a call on the device of `tensor`: with torch's pool and number of threads
/// (torch.set_num_threads), or on torch's current stream.
inline minf_exec torch_exec(const Tensor& tensor) {
  minf_exec exec{};
  exec.struct_size = sizeof(exec);
  if (tensor.is_cuda()) {
    exec.stream = current_cuda_stream(static_cast<int32_t>(tensor.get_device_index()));
    return exec;
  }
  exec.num_threads = static_cast<int32_t>(torch::stable::get_num_threads());
  exec.parallel_for = &parallel_for;
  return exec;
}

// ---- Options -------------------------------------------------------------------------------

inline const double* pointer_or_null(const std::optional<double>& value) {
  return value ? &*value : nullptr;
}

/// `softmax_scale` must outlive the result.
inline minf_attention_options attention_options(const std::optional<double>& softmax_scale) {
  return {sizeof(minf_attention_options), pointer_or_null(softmax_scale)};
}

}  // namespace minference::torch_ops
