// Memory of a tensor, on the device or the host, of exactly the bytes that it needs, so that
// compute-sanitizer sees each access past an end.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "case.h"
#include "cuda/check.h"
#include "minference/minference.h"

namespace minference::gpu_test {

inline std::size_t element_bytes(minf_dtype dtype) {
  switch (dtype) {
    case MINF_INT64:
      return 8;
    case MINF_INT32:
    case MINF_FLOAT32:
      return 4;
    default:
      return 2;
  }
}

/// A contiguous tensor and its memory.
class Buffer {
 public:
  Buffer(minf_device_type device, minf_dtype dtype, const std::vector<int64_t>& shape)
      : device_(device) {
    view_.dtype = dtype;
    view_.device_type = device;
    view_.ndim = static_cast<int32_t>(shape.size());
    int64_t stride = 1;
    for (std::size_t i = shape.size(); i-- > 0; stride *= shape[i]) {
      view_.shape[i] = shape[i];
      view_.stride[i] = stride;
    }
    bytes_ = static_cast<std::size_t>(stride) * element_bytes(dtype);
    if (device_ == MINF_DEVICE_CPU) {
      host_.resize(bytes_);
      view_.data = host_.data();
    } else {
      MINF_CUDA(cudaMalloc(&view_.data, bytes_));
    }
  }
  ~Buffer() {
    if (device_ == MINF_DEVICE_CUDA) cudaFree(view_.data);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  const minf_tensor* view() const { return &view_; }
  void* data() const { return view_.data; }
  std::size_t bytes() const { return bytes_; }

  /// Random 16-bit floats between -scale and scale, the same on both devices.
  void fill(Random random, float scale = 1) const {
    std::vector<uint16_t> elements(bytes_ / 2);
    for (uint16_t& element : elements) {
      element = static_cast<uint16_t>(encode(scale * random.uniform(), format()));
    }
    write(elements);
  }

  template <typename T>
  std::vector<T> read() const {
    std::vector<T> values(bytes_ / sizeof(T));
    MINF_CUDA(cudaMemcpy(values.data(), view_.data, values.size() * sizeof(T), cudaMemcpyDefault));
    return values;
  }

  template <typename T>
  void write(const std::vector<T>& values) const {
    MINF_CUDA(cudaMemcpy(view_.data, values.data(), values.size() * sizeof(T), cudaMemcpyDefault));
  }

  /// Elements of a floating-point tensor.
  std::vector<double> numbers() const {
    std::vector<double> values;
    if (view_.dtype == MINF_FLOAT32) {
      for (const float value : read<float>()) values.push_back(value);
    } else {
      for (const uint16_t word : read<uint16_t>()) values.push_back(decode(word, format()));
    }
    return values;
  }

 private:
  Format format() const {
    return view_.dtype == MINF_BFLOAT16 ? Format::kBFloat16 : Format::kFloat16;
  }

  minf_device_type device_;
  minf_tensor view_{};
  std::size_t bytes_ = 0;
  std::vector<std::byte> host_;
};

}  // namespace minference::gpu_test
