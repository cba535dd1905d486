// An array in emulated device memory. Kernels may touch its elements and not one byte more, and may
// read only what was written.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "simt/simt.h"

namespace minference::test {

template <typename T>
class DeviceArray {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  /// Leaves the elements uninitialised.
  explicit DeviceArray(std::size_t count)
      : data_(static_cast<T*>(simt::device_malloc(count * sizeof(T)))), count_(count) {}

  explicit DeviceArray(const std::vector<T>& elements) : DeviceArray(elements.size()) {
    std::copy(elements.begin(), elements.end(), data_);
    if (count_ > 0) simt::mark_initialized(data_, count_ * sizeof(T));
  }

  DeviceArray(DeviceArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), count_(std::exchange(other.count_, 0)) {}
  DeviceArray& operator=(DeviceArray&&) = delete;
  ~DeviceArray() { simt::device_free(data_); }

  T* data() const { return data_; }
  std::size_t size() const { return count_; }
  std::span<T> span() const { return {data_, count_}; }

  /// The elements. Unwritten ones hold arbitrary values.
  std::vector<T> host() const { return {data_, data_ + count_}; }

  /// Whether every byte was written.
  bool written() const {
    return simt::first_uninitialized(data_, count_ * sizeof(T)) == count_ * sizeof(T);
  }

 private:
  T* data_;
  std::size_t count_;
};

}  // namespace minference::test
