// What a fuzzed call is made of: numbers read from the fuzzer's bytes, and tensors whose memory
// ends exactly where they claim, so that AddressSanitizer sees the first byte read past it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

#include "minference/minference.h"

/// A property that must hold for every input. If not, ends the process, which is how a fuzzer
/// learns of it.
#define FUZZ_REQUIRE(condition)                                                              \
  do {                                                                                       \
    if (!(condition)) {                                                                      \
      std::fprintf(stderr, "%s:%d: does not hold: %s\nlast error: %s\n", __FILE__, __LINE__, \
                   #condition, minf_last_error());                                           \
      std::abort();                                                                          \
    }                                                                                        \
  } while (false)

namespace fuzz {

/// Reads numbers from the fuzzer's bytes; zeros when they run out.
class Input {
 public:
  Input(const uint8_t* data, std::size_t size) : data_(data), end_(data + size) {}

  /// A number in [0, bound).
  int64_t below(int64_t bound) {
    uint16_t raw = 0;
    const auto count = std::min<std::ptrdiff_t>(bound > 256 ? 2 : 1, end_ - data_);
    std::memcpy(&raw, data_, static_cast<std::size_t>(count));
    data_ += count;
    return raw % bound;
  }

  int64_t between(int64_t least, int64_t most) { return least + below(most - least + 1); }

  /// True once in `n` for random bytes; false when the bytes have run out.
  bool one_in(int64_t n) { return below(n) == n - 1; }

  template <typename T>
  T pick(std::initializer_list<T> values) {
    return values.begin()[below(static_cast<int64_t>(values.size()))];
  }

 private:
  const uint8_t* data_;
  const uint8_t* end_;
};

/// A small deterministic generator for tensor contents: the fuzzer picks a seed, not each element.
class Random {
 public:
  explicit Random(int64_t seed) : state_(static_cast<uint64_t>(seed) * 2 + 1) {}
  uint32_t next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 32);
  }
  /// In [-1, 1).
  float uniform() { return static_cast<float>(static_cast<int32_t>(next())) * 0x1p-31f; }

 private:
  uint64_t state_;
};

inline std::size_t element_bytes(int32_t dtype) {
  if (dtype == MINF_BFLOAT16 || dtype == MINF_FLOAT16) return 2;
  return dtype == MINF_INT64 ? 8 : 4;
}

inline float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 31u;
  const uint32_t mantissa = half & 1023u;
  if (exponent == 0) {  // Zero or subnormal.
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  if (exponent == 31) return bits_to_float(sign | 0x7f800000u | (mantissa << 13));
  return bits_to_float(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

/// The dtype's bits of `value`, rounded towards zero: contents need not be the nearest.
inline uint32_t float_to_bits(float value, int32_t dtype) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if (dtype == MINF_FLOAT32) return bits;
  if (dtype == MINF_BFLOAT16) return bits >> 16;
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t exponent = (bits >> 23) & 255u;
  const uint32_t mantissa = (bits >> 13) & 1023u;
  if (exponent == 255) return sign | 0x7c00u | mantissa | (bits & 0x7fffffu ? 1u : 0u);
  if (exponent <= 112) return sign;
  if (exponent >= 143) return sign | 0x7bffu;
  return sign | ((exponent - 112) << 10) | mantissa;
}

/// A tensor with its own memory, of exactly the extent that its view claims.
class Tensor {
 public:
  /// An absent tensor.
  Tensor() = default;

  /// Lays the dimensions out in a drawn order with drawn gaps; the `num_packed` innermost ones stay
  /// innermost and without gaps.
  Tensor(Input& input, minf_dtype dtype, std::initializer_list<int64_t> shape, int num_packed = 1) {
    view_.dtype = dtype;
    view_.ndim = static_cast<int32_t>(shape.size());
    std::copy(shape.begin(), shape.end(), view_.shape);
    std::array<int, MINF_MAX_DIMS> order{};  // Dimensions, innermost first.
    for (int i = 0; i < view_.ndim; ++i) order[static_cast<std::size_t>(i)] = view_.ndim - 1 - i;
    if (view_.ndim > num_packed && input.one_in(2)) {
      const auto first = static_cast<std::size_t>(num_packed);
      std::swap(order[first],
                order[static_cast<std::size_t>(input.between(num_packed, view_.ndim - 1))]);
    }
    int64_t stride = 1;
    for (int i = 0; i < view_.ndim; ++i) {
      const int dim = order[static_cast<std::size_t>(i)];
      view_.stride[dim] = stride;
      stride *= std::max<int64_t>(view_.shape[dim], 1);
      if (i + 1 >= num_packed && input.one_in(4)) stride += input.below(9);
    }
    allocate();
  }

  const minf_tensor* get() const { return &view_; }
  const minf_tensor& view() const { return view_; }

  /// Makes one dimension repeat itself. For inputs only.
  void broadcast(int64_t dim) {
    view_.stride[dim] = 0;
    allocate();
  }

  /// Breaks one field of the view, or changes it to another legal value. Memory follows the claim
  /// where it can; where it cannot, the library must refuse, and is_illegal() is true.
  void corrupt(Input& input) {
    const minf_tensor before = view_;
    const auto dim = static_cast<std::size_t>(input.below(MINF_MAX_DIMS));
    const auto number =
        input.pick<int64_t>({-1, 0, 1, 2, 7, 63, 64, 65, 300, INT32_MAX, INT64_C(1) << 31,
                             INT64_C(1) << 62, INT64_MAX, INT64_MIN});
    const auto small_number = static_cast<int32_t>(std::clamp<int64_t>(number, -1, INT32_MAX));
    switch (input.below(6)) {
      case 0:
        view_.dtype = static_cast<int32_t>(input.pick<int64_t>({0, 1, 2, 3, 4, 5, -1}));
        break;
      case 1:
        view_.device_type = small_number;
        break;
      case 2:
        view_.ndim = small_number;
        break;
      case 3:
        view_.shape[dim] = number;
        break;
      case 4:
        view_.stride[dim] = number;
        break;
      default:
        view_.data = nullptr;
        is_illegal_ = bytes_ > 0;
        return;
    }
    if (claims_nonsense()) {
      is_illegal_ = true;
    } else if (elements_ > kMaxElements || claimed_bytes() > kMaxBytes) {
      view_ = before;  // Legal, but more memory or work than a fuzz run can afford.
    } else {
      allocate();
    }
  }

  /// Whether the view cannot be part of any legal call that needs it.
  bool is_illegal() const { return is_illegal_; }

  void fill_random(Random& random, float scale) {
    for_each_element([&](std::size_t offset) {
      store_bits(offset, float_to_bits(random.uniform() * scale, view_.dtype));
    });
  }

  /// Fills with a byte pattern that no result is likely to equal.
  void fill_canary() { std::fill_n(memory_.get(), bytes_, kCanary); }
  bool holds_canary() const {
    return std::all_of(memory_.get(), memory_.get() + bytes_,
                       [](std::byte b) { return b == kCanary; });
  }

  bool is_absent() const { return view_.ndim == 0; }
  int64_t size(int dim) const { return view_.shape[dim]; }

  double value(std::initializer_list<int64_t> index) const {
    const std::size_t offset = offset_of(index);
    uint32_t bits = 0;
    std::memcpy(&bits, memory_.get() + offset, element_bytes(view_.dtype) == 2 ? 2 : 4);
    if (view_.dtype == MINF_BFLOAT16) return bits_to_float(bits << 16);
    if (view_.dtype == MINF_FLOAT16) return half_to_float(static_cast<uint16_t>(bits));
    return bits_to_float(bits);
  }
  void set_value(std::initializer_list<int64_t> index, float value) {
    store_bits(offset_of(index), float_to_bits(value, view_.dtype));
  }

  template <typename T>
  T integer(std::initializer_list<int64_t> index) const {
    T value;
    std::memcpy(&value, memory_.get() + offset_of(index), sizeof(T));
    return value;
  }
  void set_integer(std::initializer_list<int64_t> index, int32_t value) {
    std::memcpy(memory_.get() + offset_of(index), &value, sizeof(value));
  }

 private:
  static constexpr std::byte kCanary{0xa5};
  static constexpr int64_t kMaxElements = 1 << 16;  // Distinct indices; bounds the work of a call.
  static constexpr __int128 kMaxBytes = 1 << 20;

  /// Makes negative or absurd claims, for which no memory size would be right. Sets elements_.
  bool claims_nonsense() {
    elements_ = 1;
    if (view_.ndim < 1 || view_.ndim > MINF_MAX_DIMS) return true;
    if (view_.dtype < MINF_FLOAT32 || view_.dtype > MINF_INT64) return true;
    if (view_.device_type != MINF_DEVICE_CPU) return true;
    for (int dim = 0; dim < view_.ndim; ++dim) {
      if (view_.shape[dim] < 0 || view_.shape[dim] > INT32_MAX) return true;
      elements_ *= view_.shape[dim];
    }
    if (elements_ == 0) return false;
    for (int dim = 0; dim < view_.ndim; ++dim) {
      if (view_.shape[dim] > 1 && view_.stride[dim] < 0) return true;
    }
    return claimed_bytes() > static_cast<__int128>(INT64_MAX);
  }

  __int128 claimed_bytes() const {
    __int128 last = 0;
    for (int dim = 0; dim < view_.ndim; ++dim) {
      if (view_.shape[dim] == 0) return 0;
      if (view_.shape[dim] > 1) {
        last += static_cast<__int128>(view_.shape[dim] - 1) * view_.stride[dim];
      }
    }
    return (last + 1) * static_cast<__int128>(element_bytes(view_.dtype));
  }

  void allocate() {
    bytes_ = static_cast<std::size_t>(claimed_bytes());
    memory_ = std::make_unique<std::byte[]>(bytes_);
    view_.data = memory_.get();
  }

  std::size_t offset_of(std::initializer_list<int64_t> index) const {
    int64_t offset = 0;
    for (int dim = 0; dim < view_.ndim; ++dim) offset += index.begin()[dim] * view_.stride[dim];
    return static_cast<std::size_t>(offset) * element_bytes(view_.dtype);
  }

  void store_bits(std::size_t offset, uint32_t bits) {
    std::memcpy(memory_.get() + offset, &bits,
                std::min<std::size_t>(element_bytes(view_.dtype), 4));
  }

  template <typename Visit>
  void for_each_element(const Visit& visit) {
    const std::size_t step = element_bytes(view_.dtype);
    for (std::size_t offset = 0; offset + step <= bytes_; offset += step) visit(offset);
  }

  minf_tensor view_{};
  std::unique_ptr<std::byte[]> memory_;
  std::size_t bytes_ = 0;
  __int128 elements_ = 1;
  bool is_illegal_ = false;
};

}  // namespace fuzz
