// Device memory: one large reserved range, in which allocations lie apart, with a byte of state for
// every byte of it. Freed memory is reused as late as possible.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace simt::engine {

enum class HeapFault { kNone, kOutOfBounds, kUninitialized };

class DeviceHeap {
 public:
  /// The heap that kernels and the runtime use: 64 GiB of address space, if available.
  static DeviceHeap& instance();

  explicit DeviceHeap(std::size_t capacity);
  ~DeviceHeap();
  DeviceHeap(const DeviceHeap&) = delete;
  DeviceHeap& operator=(const DeviceHeap&) = delete;

  void* allocate(std::size_t bytes, int device);
  bool release(void* pointer);  // False if `pointer` is not the start of an allocation.

  bool contains(const void* pointer) const {
    return reinterpret_cast<uintptr_t>(pointer) - reinterpret_cast<uintptr_t>(base_) < capacity_;
  }

  /// Checks an access by a kernel; a write marks the bytes as initialised. `pointer` is in the
  /// heap's range.
  HeapFault read(const void* pointer, std::size_t size, std::size_t* first_bad) const;
  HeapFault write(void* pointer, std::size_t size, std::size_t* first_bad);

  bool is_allocated(const void* pointer, std::size_t size) const;
  void set_initialized(void* pointer, std::size_t size);
  std::size_t first_uninitialized(const void* pointer, std::size_t size) const;

  /// Device of the allocation that holds `pointer`; -1 if none does.
  int device_of(const void* pointer) const;

  /// For messages: where `pointer` lies, relative to the nearest allocation before it.
  std::string describe(const void* pointer) const;

  std::size_t num_allocations() const;

 private:
  enum State : uint8_t { kFree = 0, kUninitialized = 1, kInitialized = 3 };
  struct Allocation {
    std::size_t bytes;
    int device;
  };
  using Allocations = std::map<std::size_t, Allocation>;  // By offset.

  std::size_t find_gap(std::size_t bytes) const;
  std::size_t offset_of(const void* pointer) const {
    return static_cast<std::size_t>(static_cast<const char*>(pointer) - base_);
  }

  char* base_ = nullptr;
  uint8_t* state_ = nullptr;
  std::size_t reserved_ = 0;  // Bytes of each of the two.
  std::size_t capacity_ = 0;
  std::size_t next_ = 0;  // Where the search for a gap starts.
  Allocations allocations_;
  mutable std::mutex mutex_;  // For allocations_ and next_; the launch or the host owns the state.
};

}  // namespace simt::engine
