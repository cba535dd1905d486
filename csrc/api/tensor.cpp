// Tensor checks: what a view says about itself, about others, and where its memory lies.
// SPDX-License-Identifier: Apache-2.0
#include "api/tensor.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "core/check.h"

namespace minference::api {
namespace {

/// Largest distance in elements from the first element of a tensor to its last.
constexpr int64_t kMaxReach = int64_t{1} << 58;

constexpr int64_t kMaxHeadDim = MINF_MAX_HEAD_DIM;

const char* dtype_name(int32_t dtype) {
  constexpr const char* kNames[] = {"float32", "bfloat16", "float16", "int32", "int64"};
  return dtype >= 0 && dtype < 5 ? kNames[dtype] : "an unknown dtype";
}

std::string device_text(const minf_tensor& tensor) {
  return tensor.device_type == MINF_DEVICE_CPU ? "cpu"
                                               : detail::concat("cuda:", tensor.device_index);
}

/// "[2, 128, 8, 64]"; negative entries print as `any` if asked to.
std::string list_text(std::span<const int64_t> values, bool negative_is_any = false) {
  std::string text = "[";
  for (const int64_t value : values) {
    if (text.size() > 1) text += ", ";
    text += negative_is_any && value < 0 ? "any" : std::to_string(value);
  }
  return text + "]";
}

std::span<const int64_t> shape(const minf_tensor& tensor) {
  return {tensor.shape, static_cast<std::size_t>(tensor.ndim)};
}

std::span<const int64_t> strides(const minf_tensor& tensor) {
  return {tensor.stride, static_cast<std::size_t>(tensor.ndim)};
}

/// Distance from the first element to the last. The tensor has passed check_strides.
int64_t reach(const TensorArg& arg) {
  int64_t elements = 0;
  for (int dim = 0; dim < arg.tensor->ndim; ++dim) {
    elements += std::max<int64_t>(arg.size(dim) - 1, 0) * arg.stride(dim);
  }
  return elements;
}

std::size_t extent_bytes(const TensorArg& arg) {
  return arg.empty() ? 0 : static_cast<std::size_t>((reach(arg) + 1) * arg.element_bytes());
}

void check_strides(const TensorArg& arg) {
  const int last = arg.tensor->ndim - 1;
  MINF_CHECK_ARG(arg.size(last) <= 1 || arg.stride(last) == 1, arg.name,
                 ": expected innermost stride 1, got strides ", list_text(strides(*arg.tensor)));
  int64_t elements = 0;
  for (int dim = 0; dim <= last; ++dim) {
    const int64_t stride = arg.stride(dim);
    MINF_CHECK_ARG(stride >= 0, arg.name, ": expected strides >= 0, got ",
                   list_text(strides(*arg.tensor)));
    if (stride == 0) continue;
    MINF_CHECK_ARG(stride <= (kMaxReach - elements) / (arg.size(dim) - 1), arg.name,
                   ": expected the last element at most ", kMaxReach,
                   " elements after the first, got shape ", list_text(shape(*arg.tensor)),
                   " with strides ", list_text(strides(*arg.tensor)));
    elements += stride * (arg.size(dim) - 1);
  }
}

std::uintptr_t begin_of(const TensorArg& arg) {
  return reinterpret_cast<std::uintptr_t>(arg.tensor->data);
}

std::size_t stride_bytes(const TensorArg& arg, int dim) {
  return static_cast<std::size_t>(arg.stride(dim) * arg.element_bytes());
}

/// Every element of a view lies, modulo `modulus` bytes, in [begin, begin + width): strides that
/// are multiples of the modulus add nothing to the width.
std::size_t residue_width(const TensorArg& arg, std::size_t modulus) {
  std::size_t width = static_cast<std::size_t>(arg.element_bytes());
  for (int dim = 0; dim < arg.tensor->ndim; ++dim) {
    const std::size_t stride = stride_bytes(arg, dim);
    if (stride % modulus != 0) width += static_cast<std::size_t>(arg.size(dim) - 1) * stride;
  }
  return width;
}

/// Whether no byte of `a` and none of `b` have equal addresses modulo `modulus`.
bool disjoint_modulo(const TensorArg& a, const TensorArg& b, std::size_t modulus) {
  const std::size_t width_a = residue_width(a, modulus);
  const std::size_t width_b = residue_width(b, modulus);
  const std::size_t shift = (begin_of(b) % modulus + modulus - begin_of(a) % modulus) % modulus;
  return width_a <= shift && width_b <= modulus - shift;
}

bool may_overlap(const TensorArg& a, const TensorArg& b) {
  if (a.empty() || b.empty()) return false;
  if (begin_of(a) + extent_bytes(a) <= begin_of(b)) return false;
  if (begin_of(b) + extent_bytes(b) <= begin_of(a)) return false;
  for (const TensorArg* arg : {&a, &b}) {
    for (int dim = 0; dim < arg->tensor->ndim; ++dim) {
      const std::size_t modulus = stride_bytes(*arg, dim);
      if (modulus != 0 && disjoint_modulo(a, b, modulus)) return false;
    }
  }
  return true;
}

template <typename Result>
Result tokens_of(const TensorArg& arg) {
  return {.data = arg.tensor->data,
          .batch_stride = arg.stride(0),
          .token_stride = arg.stride(1),
          .head_stride = arg.stride(2)};
}

template <typename Result>
Result row_values_of(const TensorArg& arg) {
  if (is_absent(arg.tensor)) return {};
  return {.data = static_cast<float*>(arg.tensor->data),
          .batch_stride = arg.stride(0),
          .head_stride = arg.stride(1),
          .row_stride = arg.stride(2)};
}

}  // namespace

int64_t TensorArg::element_bytes() const {
  switch (tensor->dtype) {
    case MINF_BFLOAT16:
    case MINF_FLOAT16:
      return 2;
    case MINF_INT64:
      return 8;
    default:
      return 4;
  }
}

bool TensorArg::empty() const {
  return is_absent(tensor) || std::ranges::find(shape(*tensor), 0) != shape(*tensor).end();
}

void check_tensor(const TensorArg& arg, int ndim, std::initializer_list<minf_dtype> dtypes) {
  MINF_CHECK_ARG(arg.tensor != nullptr, arg.name, ": expected a tensor, got null");
  const minf_tensor& tensor = *arg.tensor;
  MINF_CHECK_ARG(tensor.ndim == ndim, arg.name, ": expected ", ndim, " dimensions, got ",
                 tensor.ndim);
  if (std::ranges::find(dtypes, tensor.dtype) == dtypes.end()) {
    std::string expected;
    for (const minf_dtype dtype : dtypes) {
      expected += detail::concat(expected.empty() ? "" : " or ", dtype_name(dtype));
    }
    detail::throw_error(MINF_ERROR_INVALID_ARGUMENT,
                        detail::concat(arg.name, ": expected dtype ", expected, ", got ",
                                       dtype_name(tensor.dtype), " (", tensor.dtype, ")"));
  }
  MINF_CHECK_ARG(tensor.device_type == MINF_DEVICE_CPU || tensor.device_type == MINF_DEVICE_CUDA,
                 arg.name, ": expected device_type MINF_DEVICE_CPU or MINF_DEVICE_CUDA, got ",
                 tensor.device_type);
  for (const int64_t size : shape(tensor)) {
    MINF_CHECK_ARG(size >= 0 && size <= kMaxSize, arg.name, ": expected sizes in [0, ", kMaxSize,
                   "], got shape ", list_text(shape(tensor)));
  }
  if (!arg.empty()) check_strides(arg);
}

void check_shape(const TensorArg& arg, std::initializer_list<int64_t> expected,
                 const char* meaning) {
  int dim = 0;
  for (const int64_t size : expected) {
    MINF_CHECK_ARG(size < 0 || arg.size(dim) == size, arg.name, ": expected shape ", meaning, " = ",
                   list_text({expected.begin(), expected.size()}, /*negative_is_any=*/true),
                   ", got ", list_text(shape(*arg.tensor)));
    ++dim;
  }
}

void check_same_dtype(const TensorArg& arg, const TensorArg& reference) {
  MINF_CHECK_ARG(arg.tensor->dtype == reference.tensor->dtype, arg.name, ": expected dtype ",
                 dtype_name(reference.tensor->dtype), " like ", reference.name, ", got ",
                 dtype_name(arg.tensor->dtype));
}

void check_same_device(const TensorArg& arg, const TensorArg& reference) {
  const minf_tensor& tensor = *arg.tensor;
  const minf_tensor& other = *reference.tensor;
  const bool same =
      tensor.device_type == other.device_type &&
      (tensor.device_type == MINF_DEVICE_CPU || tensor.device_index == other.device_index);
  MINF_CHECK_ARG(same, arg.name, ": expected a tensor on ", device_text(other), " like ",
                 reference.name, ", got one on ", device_text(tensor));
}

void check_data(const TensorArg& arg) {
  if (arg.empty()) return;
  const auto bytes = static_cast<std::size_t>(arg.element_bytes());
  MINF_CHECK_ARG(arg.tensor->data != nullptr, arg.name, ": expected memory for shape ",
                 list_text(shape(*arg.tensor)), ", got data = null");
  MINF_CHECK_ARG(begin_of(arg) % bytes == 0, arg.name, ": expected data aligned to ", bytes,
                 " bytes, got address ", arg.tensor->data);
  MINF_CHECK_ARG(begin_of(arg) <= UINTPTR_MAX - extent_bytes(arg), arg.name, ": expected ",
                 extent_bytes(arg), " bytes of memory from data on, got address ",
                 arg.tensor->data);
}

void check_distinct_elements(const TensorArg& out) {
  if (out.empty()) return;
  std::array<int, MINF_MAX_DIMS> order = {0, 1, 2, 3};
  const int ndim = out.tensor->ndim;
  std::ranges::sort(order, {}, [&](int dim) { return dim < ndim ? out.stride(dim) : INT64_MAX; });
  // Sufficient, and met by every view of a dense tensor: each stride passes all smaller ones.
  int64_t elements = 0;
  for (const int dim : std::span(order).first(static_cast<std::size_t>(ndim))) {
    if (out.size(dim) == 1) continue;
    MINF_CHECK_ARG(out.stride(dim) > elements, out.name,
                   ": expected strides that give every element its own memory, got shape ",
                   list_text(shape(*out.tensor)), " with strides ",
                   list_text(strides(*out.tensor)));
    elements += (out.size(dim) - 1) * out.stride(dim);
  }
}

void check_disjoint(const TensorArg& out, const TensorArg& other) {
  MINF_CHECK_ARG(!may_overlap(out, other), out.name, ": expected memory that does not overlap ",
                 other.name, ", got ", extent_bytes(out), " bytes at ", out.tensor->data, " and ",
                 extent_bytes(other), " bytes at ", other.tensor->data);
}

void check_disjoint(const TensorArg& out, std::initializer_list<TensorArg> others) {
  for (const TensorArg& other : others) check_disjoint(out, other);
}

bool is_same_view(const TensorArg& a, const TensorArg& b) {
  if (a.tensor->data != b.tensor->data || a.tensor->dtype != b.tensor->dtype) return false;
  if (!std::ranges::equal(shape(*a.tensor), shape(*b.tensor))) return false;
  for (int dim = 0; dim < a.tensor->ndim; ++dim) {
    if (a.stride(dim) != b.stride(dim)) return false;
  }
  return true;
}

int32_t checked_head_dim(const TensorArg& arg, const char* dim_name) {
  const int64_t head_dim = arg.size(3);
  MINF_CHECK_ARG(head_dim >= 1 && head_dim <= kMaxHeadDim, arg.name, ": expected ", dim_name,
                 " 8 to ", kMaxHeadDim, ", got ", head_dim);
  if (head_dim % 8 != 0) {
    detail::throw_error(MINF_ERROR_UNSUPPORTED,
                        detail::concat(arg.name, ": expected ", dim_name,
                                       " to be a multiple of 8, got ", head_dim));
  }
  return static_cast<int32_t>(head_dim);
}

Shape check_query(const TensorArg& q) {
  check_tensor(q, 4, {MINF_FLOAT32, MINF_BFLOAT16, MINF_FLOAT16});
  const int64_t num_heads = q.size(2);
  MINF_CHECK_ARG(num_heads >= 1, q.name, ": expected at least 1 head, got 0");
  MINF_CHECK_ARG(q.size(0) * num_heads <= kMaxHeads, q.name,
                 ": expected batch * heads <= ", kMaxHeads, ", got ", q.size(0), " * ", num_heads);
  const int32_t head_dim = checked_head_dim(q, "head_dim");
  const auto seqlen = static_cast<int32_t>(q.size(1));
  return {.dtype = static_cast<DType>(q.tensor->dtype),
          .batch = static_cast<int32_t>(q.size(0)),
          .num_heads_q = static_cast<int32_t>(num_heads),
          .num_heads_kv = static_cast<int32_t>(num_heads),
          .head_dim = head_dim,
          .lengths = {.seqlen_q = seqlen, .seqlen_k = seqlen}};
}

Shape check_query_keys(const TensorArg& q, const TensorArg& k) {
  Shape result = check_query(q);
  check_tensor(k, 4, {MINF_FLOAT32, MINF_BFLOAT16, MINF_FLOAT16});
  check_same_dtype(k, q);
  check_same_device(k, q);
  check_shape(k, {q.size(0), -1, -1, q.size(3)}, "[batch, seqlen_k, num_heads_kv, head_dim]");
  MINF_CHECK_ARG(k.size(2) >= 1, k.name, ": expected at least 1 head, got 0");
  MINF_CHECK_ARG(q.size(2) % k.size(2) == 0, q.name, ": expected a multiple of the ", k.size(2),
                 " heads of ", k.name, ", got ", q.size(2), " heads");
  MINF_CHECK_ARG(q.size(1) <= k.size(1), q.name, ": expected seqlen_q <= seqlen_k = ", k.size(1),
                 ", got ", q.size(1));
  result.num_heads_kv = static_cast<int32_t>(k.size(2));
  result.lengths.seqlen_k = static_cast<int32_t>(k.size(1));
  return result;
}

ConstTokens const_tokens(const TensorArg& arg) { return tokens_of<ConstTokens>(arg); }
Tokens tokens(const TensorArg& arg) { return tokens_of<Tokens>(arg); }
ConstRowValues const_row_values(const TensorArg& arg) { return row_values_of<ConstRowValues>(arg); }
RowValues row_values(const TensorArg& arg) { return row_values_of<RowValues>(arg); }

}  // namespace minference::api
