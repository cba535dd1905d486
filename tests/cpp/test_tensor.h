// Owned tensors for the tests, read and written as double whatever their dtype. They are in host
// memory, or in emulated device memory, which the host can also read and write.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>
#include <random>
#include <span>
#include <vector>

#include "minference/minference.h"

namespace minference::test {

inline std::size_t dtype_bytes(int32_t dtype) {
  return dtype == MINF_INT64 ? 8 : dtype == MINF_BFLOAT16 || dtype == MINF_FLOAT16 ? 2 : 4;
}

/// Machine epsilon: the distance from 1 to the next number.
inline double epsilon(int32_t dtype) {
  return dtype == MINF_BFLOAT16 ? 0x1p-7 : dtype == MINF_FLOAT16 ? 0x1p-10 : 0x1p-23;
}

/// Decodes a 16-bit float with `mantissa_bits` stored bits. The tests' inputs have no infinities or
/// NaN, but they are decoded as such.
inline double decode_16(uint16_t bits, int mantissa_bits) {
  const int exponent_bits = 15 - mantissa_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = bits >> 15 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) return mantissa == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

/// Exact: `value` must be a normal number of the format, or 0.
inline uint16_t encode_16(double value, int mantissa_bits) {
  if (value == 0) return 0;
  int exponent = 0;
  const double fraction = std::frexp(std::abs(value), &exponent);  // In [0.5, 1).
  const int bias = (1 << (14 - mantissa_bits)) - 1;
  const int mantissa =
      static_cast<int>(std::ldexp(fraction, mantissa_bits + 1)) - (1 << mantissa_bits);
  const int sign = value < 0 ? 1 << 15 : 0;
  return static_cast<uint16_t>(sign | (exponent - 1 + bias) << mantissa_bits | mantissa);
}

/// Where new tensors are allocated: host memory, unless a test program says otherwise.
struct Place {
  minf_device_type device_type = MINF_DEVICE_CPU;
  void* (*allocate)(std::size_t bytes) = [](std::size_t bytes) { return ::operator new(bytes); };
  void (*release)(void* data) = [](void* data) { ::operator delete(data); };
  void (*written)(void* data, std::size_t bytes) = [](void*, std::size_t) {};  // By the host.
};
inline Place place;

class TestTensor {
 public:
  TestTensor() = default;

  /// Row-major; every byte starts as 0x7b, so that what a call writes shows.
  TestTensor(int32_t dtype, std::initializer_list<int64_t> shape) {
    view_.dtype = dtype;
    view_.device_type = place.device_type;
    view_.ndim = static_cast<int32_t>(shape.size());
    int64_t count = 1;
    for (int dim = view_.ndim - 1; dim >= 0; --dim) {
      view_.shape[dim] = shape.begin()[dim];
      view_.stride[dim] = count;
      count *= shape.begin()[dim];
    }
    size_bytes_ = static_cast<std::size_t>(count) * dtype_bytes(dtype);
    if (size_bytes_ == 0) return;
    storage_ = {place.allocate(size_bytes_), place.release};
    view_.data = storage_.get();
    fill(std::byte{0x7b});
    place.written(view_.data, size_bytes_);
  }

  /// Valid while the tensor lives, even if it is moved.
  minf_tensor view() const { return view_; }
  std::span<std::byte> bytes() const { return {static_cast<std::byte*>(view_.data), size_bytes_}; }
  /// A copy of the current contents.
  std::vector<std::byte> copy() const { return {bytes().begin(), bytes().end()}; }
  void fill(std::byte value) { std::ranges::fill(bytes(), value); }
  int64_t size(int dim) const { return view_.shape[dim]; }

  double get(std::initializer_list<int64_t> index) const {
    const std::byte* at = bytes().data() + offset_bytes(index);
    return decode(at);
  }

  void set(std::initializer_list<int64_t> index, double value) {
    encode(bytes().data() + offset_bytes(index), value);
  }

  /// Fills with multiples of 1/64 in [-2, 2]: exact in every dtype, as are sums of their products.
  void fill_random(std::mt19937& random) {
    std::uniform_int_distribution<int> steps(-128, 128);
    for (std::size_t at = 0; at < size_bytes_; at += dtype_bytes(view_.dtype)) {
      encode(bytes().data() + at, steps(random) / 64.0);
    }
  }

 private:
  std::size_t offset_bytes(std::initializer_list<int64_t> index) const {
    int64_t offset = 0;
    for (int dim = 0; dim < view_.ndim; ++dim) offset += index.begin()[dim] * view_.stride[dim];
    return static_cast<std::size_t>(offset) * dtype_bytes(view_.dtype);
  }

  template <typename Value>
  static double read(const std::byte* at) {
    Value value;
    std::memcpy(&value, at, sizeof value);
    return static_cast<double>(value);
  }

  template <typename Value>
  static void write(std::byte* at, Value value) {
    std::memcpy(at, &value, sizeof value);
  }

  double decode(const std::byte* at) const {
    uint16_t bits = 0;
    switch (view_.dtype) {
      case MINF_FLOAT32:
        return read<float>(at);
      case MINF_INT32:
        return read<int32_t>(at);
      case MINF_INT64:
        return read<int64_t>(at);
      default:
        std::memcpy(&bits, at, sizeof bits);
        return decode_16(bits, view_.dtype == MINF_BFLOAT16 ? 7 : 10);
    }
  }

  void encode(std::byte* at, double value) const {
    switch (view_.dtype) {
      case MINF_FLOAT32:
        return write(at, static_cast<float>(value));
      case MINF_INT32:
        return write(at, static_cast<int32_t>(value));
      case MINF_INT64:
        return write(at, static_cast<int64_t>(value));
      default:
        return write(at, encode_16(value, view_.dtype == MINF_BFLOAT16 ? 7 : 10));
    }
  }

  std::unique_ptr<void, void (*)(void*)> storage_{nullptr, [](void*) {}};
  std::size_t size_bytes_ = 0;
  minf_tensor view_{};
};

}  // namespace minference::test
