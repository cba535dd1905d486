// Types of the C++17 surface: errors, views of tensors, patterns, and how a call runs.
// SPDX-License-Identifier: Apache-2.0
#ifndef MINFERENCE_TYPES_HPP_
#define MINFERENCE_TYPES_HPP_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>

#include "minference/minference.h"

#if !defined(_MSVC_LANG) && __cplusplus < 201703L
#error "the C++ surface of minference needs C++17"
#endif

namespace minference {

// ---- Errors ----------------------------------------------------------------------------------

enum class ErrorCode : int32_t {
  kInvalidArgument = MINF_ERROR_INVALID_ARGUMENT,
  kUnsupported = MINF_ERROR_UNSUPPORTED,
  kWorkspaceTooSmall = MINF_ERROR_WORKSPACE_TOO_SMALL,
  kOutOfMemory = MINF_ERROR_OUT_OF_MEMORY,
  kInternal = MINF_ERROR_INTERNAL,
  kNoDevice = MINF_ERROR_NO_DEVICE,
  kDriverTooOld = MINF_ERROR_DRIVER_TOO_OLD,
  kArchNotBuilt = MINF_ERROR_ARCH_NOT_BUILT,
  kWrongDevice = MINF_ERROR_WRONG_DEVICE,
  kWrongStream = MINF_ERROR_WRONG_STREAM,
  kLaunchFailed = MINF_ERROR_LAUNCH_FAILED,
  kCuda = MINF_ERROR_CUDA,
};

/// A failed call. what() names the argument, what was expected and what came.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

namespace detail {

inline void check(minf_status status) {
  if (status != MINF_OK) throw Error(static_cast<ErrorCode>(status), minf_last_error());
}

}  // namespace detail

// ---- Tensors ---------------------------------------------------------------------------------

enum class DType : int32_t {
  kFloat32 = MINF_FLOAT32,
  kBFloat16 = MINF_BFLOAT16,
  kFloat16 = MINF_FLOAT16,
  kInt32 = MINF_INT32,
  kInt64 = MINF_INT64,
};

/// The DType of a C++ element type. Specialise it for a 16-bit float type of your own.
template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kFloat32;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kInt32;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::kInt64;
};

enum class DeviceType : int32_t { kCpu = MINF_DEVICE_CPU, kCuda = MINF_DEVICE_CUDA };

struct Device {
  DeviceType type = DeviceType::kCpu;
  int32_t index = 0;  // CUDA ordinal; 0 on the CPU.
};

/// The sizes or the strides of a tensor, in elements: 1 to MINF_MAX_DIMS numbers.
class Dims {
 public:
  Dims(std::initializer_list<int64_t> values) : Dims(values.begin(), values.size()) {}
  Dims(const int64_t* values, std::size_t count) : count_(static_cast<int32_t>(count)) {
    if (count < 1 || count > MINF_MAX_DIMS) {
      throw Error(ErrorCode::kInvalidArgument, "Dims: expected 1 to " +
                                                   std::to_string(MINF_MAX_DIMS) +
                                                   " dimensions, got " + std::to_string(count));
    }
    for (std::size_t i = 0; i < count; ++i) values_[i] = values[i];
  }

  int32_t count() const noexcept { return count_; }
  int64_t operator[](int32_t dim) const noexcept { return values_[dim]; }

 private:
  int32_t count_;
  int64_t values_[MINF_MAX_DIMS] = {};
};

/// A borrowed, read-only tensor, for the inputs of a call. A default-constructed one is absent.
/// Without strides the tensor is contiguous, row-major. The memory must outlive the calls.
class ConstTensorView {
 public:
  ConstTensorView() noexcept = default;

  /// @throws Error{kInvalidArgument} if shape and strides differ in length.
  ConstTensorView(const void* data, DType dtype, const Dims& shape, const Dims& strides,
                  Device device = {})
      : ConstTensorView(data, dtype, shape, device) {
    if (strides.count() != shape.count()) {
      throw Error(ErrorCode::kInvalidArgument, "TensorView: expected one stride per dimension (" +
                                                   std::to_string(shape.count()) + "), got " +
                                                   std::to_string(strides.count()));
    }
    for (int32_t dim = 0; dim < tensor_.ndim; ++dim) tensor_.stride[dim] = strides[dim];
  }

  ConstTensorView(const void* data, DType dtype, const Dims& shape, Device device = {}) {
    // Cast: the library writes only to what a TensorView gives it.
    tensor_.data = const_cast<void*>(data);
    tensor_.dtype = static_cast<int32_t>(dtype);
    tensor_.device_type = static_cast<int32_t>(device.type);
    tensor_.device_index = device.index;
    tensor_.ndim = shape.count();
    // Unsigned: sizes too large to multiply wrap here, and the call that gets them refuses them.
    uint64_t stride = 1;
    for (int32_t dim = tensor_.ndim - 1; dim >= 0; --dim) {
      tensor_.shape[dim] = shape[dim];
      tensor_.stride[dim] = static_cast<int64_t>(stride);
      stride *= static_cast<uint64_t>(shape[dim] > 0 ? shape[dim] : 1);
    }
  }

  template <typename T, DType kDType = DTypeOf<T>::value>
  ConstTensorView(const T* data, const Dims& shape, Device device = {})
      : ConstTensorView(data, kDType, shape, device) {}

  template <typename T, DType kDType = DTypeOf<T>::value>
  ConstTensorView(const T* data, const Dims& shape, const Dims& strides, Device device = {})
      : ConstTensorView(data, kDType, shape, strides, device) {}

  /// The C++ form of a view that a C function filled in.
  explicit ConstTensorView(const minf_tensor& tensor) noexcept : tensor_(tensor) {}

  bool absent() const noexcept { return tensor_.ndim == 0; }
  int32_t ndim() const noexcept { return tensor_.ndim; }
  int64_t shape(int32_t dim) const noexcept { return tensor_.shape[dim]; }
  int64_t stride(int32_t dim) const noexcept { return tensor_.stride[dim]; }
  DType dtype() const noexcept { return static_cast<DType>(tensor_.dtype); }
  Device device() const noexcept {
    return {static_cast<DeviceType>(tensor_.device_type), tensor_.device_index};
  }

  /// The C form, valid as long as this view.
  const minf_tensor& c_tensor() const noexcept { return tensor_; }

 private:
  minf_tensor tensor_{};
};

/// A borrowed tensor that may be written, for the outputs of a call. It can be an input as well.
class TensorView : public ConstTensorView {
 public:
  TensorView() noexcept = default;
  TensorView(void* data, DType dtype, const Dims& shape, Device device = {})
      : ConstTensorView(data, dtype, shape, device) {}
  TensorView(void* data, DType dtype, const Dims& shape, const Dims& strides, Device device = {})
      : ConstTensorView(data, dtype, shape, strides, device) {}

  template <typename T, DType kDType = DTypeOf<T>::value>
  TensorView(T* data, const Dims& shape, Device device = {})
      : ConstTensorView(data, kDType, shape, device) {}

  template <typename T, DType kDType = DTypeOf<T>::value>
  TensorView(T* data, const Dims& shape, const Dims& strides, Device device = {})
      : ConstTensorView(data, kDType, shape, strides, device) {}
};

// ---- Patterns --------------------------------------------------------------------------------

/// The pattern of one query head. A list of patterns has num_heads_q entries, or one for all heads.
using Pattern = minf_pattern;

/// All keys.
inline Pattern dense() { return minf_pattern_default(MINF_DENSE); }

/// The first `sink` keys and the last `window` positions up to the row's own. Tokens.
inline Pattern a_shape(int32_t sink, int32_t window) {
  Pattern pattern = minf_pattern_default(MINF_A_SHAPE);
  pattern.as.a_shape.sink = sink;
  pattern.as.a_shape.window = window;
  return pattern;
}

/// a_shape, and the last `last` rows of the call are dense. Tokens.
inline Pattern tri_shape(int32_t sink, int32_t window, int32_t last) {
  Pattern pattern = minf_pattern_default(MINF_TRI_SHAPE);
  pattern.as.tri_shape.sink = sink;
  pattern.as.tri_shape.window = window;
  pattern.as.tri_shape.last = last;
  return pattern;
}

/// The `vertical_size` key columns and the `slash_size` distances that the last rows attend most.
/// The estimator's other options are the defaults; they are in `as.vertical_slash`.
inline Pattern vertical_slash(int32_t vertical_size, int32_t slash_size) {
  Pattern pattern = minf_pattern_default(MINF_VERTICAL_SLASH);
  pattern.as.vertical_slash.vertical_size = vertical_size;
  pattern.as.vertical_slash.slash_size = slash_size;
  return pattern;
}

/// The `top_k` key blocks (64 keys each) of each row block with the largest mean-pooled score, or
/// the fewest of them that hold the share `top_p` of the softmax mass.
inline Pattern block_sparse(int32_t top_k, double top_p = 1) {
  Pattern pattern = minf_pattern_default(MINF_BLOCK_SPARSE);
  pattern.as.block_sparse.top_k = top_k;
  pattern.as.block_sparse.top_p = top_p;
  return pattern;
}

// ---- Execution -------------------------------------------------------------------------------

/// Work memory for a call, on the tensors' device, of any alignment. Two calls that run at the same
/// time need two.
struct Workspace {
  void* data = nullptr;
  std::size_t bytes = 0;
};

/// Where and with what a call runs. The default is right on a CPU. A CUDA call also needs `stream`,
/// and a `workspace` of the size that the function's *_workspace_bytes returns.
struct Exec {
  void* stream = nullptr;                    // cudaStream_t to enqueue on. CPU: ignored.
  int32_t num_threads = 0;                   // CPU: 0 = all that the process may run on.
  minf_parallel_for parallel_for = nullptr;  // CPU: the host's pool; null = the library's own.
  void* parallel_for_context = nullptr;
  Workspace workspace;  // If empty: on the CPU, memory is allocated for the length of the call.
};

/// Multiplies q.k before softmax; empty selects head_dim ** -0.5.
using SoftmaxScale = std::optional<double>;

}  // namespace minference

#endif  // MINFERENCE_TYPES_HPP_
