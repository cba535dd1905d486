// Memory of one device, by itself and with the shape of a tensor. Contents start as zeros on the
// CPU, which also maps every page before anything is timed, and as anything on a GPU.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "gpu.h"
#include "minference/minference.hpp"

namespace bench {

class Memory {
 public:
  Memory(minference::DeviceType device, std::size_t bytes) : device_(device), bytes_(bytes) {
    if (bytes == 0) return;
    data_ = on_gpu() ? gpu::allocate(bytes) : ::operator new(bytes, kAlignment);
    if (!on_gpu()) std::memset(data_, 0, bytes);
  }
  ~Memory() {
    if (data_ == nullptr) return;
    on_gpu() ? gpu::release(data_) : ::operator delete(data_, kAlignment);
  }
  Memory(Memory&& other) noexcept
      : device_(other.device_), bytes_(other.bytes_), data_(std::exchange(other.data_, nullptr)) {}
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  Memory& operator=(Memory&&) = delete;

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

  /// All of it, from or to host memory.
  void upload(const void* host) {
    if (bytes_ == 0) return;
    on_gpu() ? gpu::upload(data_, host, bytes_) : void(std::memcpy(data_, host, bytes_));
  }
  void download(void* host) const {
    if (bytes_ == 0) return;
    on_gpu() ? gpu::download(host, data_, bytes_) : void(std::memcpy(host, data_, bytes_));
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  bool on_gpu() const { return device_ == minference::DeviceType::kCuda; }

  minference::DeviceType device_;
  std::size_t bytes_;
  void* data_ = nullptr;
};

inline std::size_t element_bytes(minference::DType dtype) {
  switch (dtype) {
    case minference::DType::kBFloat16:
    case minference::DType::kFloat16:
      return 2;
    case minference::DType::kInt64:
      return 8;
    default:
      return 4;
  }
}

/// A contiguous tensor and its memory.
class Tensor {
 public:
  Tensor(minference::DeviceType device, minference::DType dtype, const minference::Dims& shape)
      : memory_(device, num_elements(shape) * element_bytes(dtype)),
        view_(memory_.data(), dtype, shape, minference::Device{device, 0}) {}

  const minference::TensorView& view() const { return view_; }
  Memory& memory() { return memory_; }

  /// Entries [first, first + count) of dimension `dim`, which holds heads.
  minference::TensorView heads(int32_t dim, int64_t first, int64_t count) const {
    int64_t shape[MINF_MAX_DIMS], stride[MINF_MAX_DIMS];
    for (int32_t i = 0; i < view_.ndim(); ++i) {
      shape[i] = i == dim ? count : view_.shape(i);
      stride[i] = view_.stride(i);
    }
    const auto offset = static_cast<std::size_t>(first * view_.stride(dim));
    const auto ndim = static_cast<std::size_t>(view_.ndim());
    return {static_cast<std::byte*>(memory_.data()) + offset * element_bytes(view_.dtype()),
            view_.dtype(), minference::Dims(shape, ndim), minference::Dims(stride, ndim),
            view_.device()};
  }

 private:
  static std::size_t num_elements(const minference::Dims& shape) {
    int64_t count = 1;
    for (int32_t i = 0; i < shape.count(); ++i) count *= shape[i];
    return static_cast<std::size_t>(count);
  }

  Memory memory_;
  minference::TensorView view_;
};

}  // namespace bench
