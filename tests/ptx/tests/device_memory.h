// Host memory that kernels may touch, with exactly its bytes; and options that are reset at the end
// of their scope.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <random>
#include <utility>
#include <vector>

#include "memory.h"
#include "options.h"

namespace ptxsim::test {

template <class T>
class DeviceMemory {
 public:
  explicit DeviceMemory(std::vector<T> values) : size_(values.size()) {
    // cudaMalloc's alignment.
    constexpr std::size_t kAlign = 256;
    storage_.resize(size_ * sizeof(T) + kAlign);
    const auto begin = reinterpret_cast<u64>(storage_.data());
    data_ = reinterpret_cast<T*>((begin + kAlign - 1) / kAlign * kAlign);
    std::copy(values.begin(), values.end(), data_);
    add_memory(data_, size_ * sizeof(T));
  }
  ~DeviceMemory() { remove_memory(data_); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  u64 address() const { return reinterpret_cast<u64>(data_); }
  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }

 private:
  std::size_t size_;
  std::vector<u8> storage_;
  T* data_ = nullptr;
};

/// Random bytes, the same in every run.
inline std::vector<u8> random_bytes(std::size_t count, u32 seed = 1) {
  std::mt19937 random(seed);
  std::vector<u8> bytes(count);
  for (u8& byte : bytes) byte = static_cast<u8>(random());
  return bytes;
}

/// Sets how copies land while this object lives.
class WithLanding {
 public:
  explicit WithLanding(Landing landing, u64 seed = 1) : before_(options()) {
    options().landing = landing;
    options().seed = seed;
  }
  ~WithLanding() { options() = before_; }
  WithLanding(const WithLanding&) = delete;
  WithLanding& operator=(const WithLanding&) = delete;

 private:
  Options before_;
};

/// Runs `body` with each way of landing; the random one with a few seeds.
template <class Body>
void with_each_landing(Body body) {
  for (const Landing landing : {Landing::kAtOnce, Landing::kLate}) {
    const WithLanding scope(landing);
    body();
  }
  for (u64 seed = 1; seed <= 4; ++seed) {
    const WithLanding scope(Landing::kRandom, seed);
    body();
  }
}

}  // namespace ptxsim::test
