// Device memory: see device_heap.h.
// SPDX-License-Identifier: Apache-2.0
#include "device_heap.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace simt::engine {
namespace {

constexpr std::size_t kAlignment = 256;  // Like cudaMalloc's.
// A gap between two allocations, so that an index that is off by a row or so does not hit a
// neighbour.
constexpr std::size_t kGapBytes = 4096;
// Larger ones keep their zero pages: filling them would commit memory that may never be touched.
constexpr std::size_t kMaxFilledBytes = std::size_t{64} << 20;

void* reserve(std::size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

std::size_t footprint(std::size_t bytes) {
  return (bytes + kGapBytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

DeviceHeap& DeviceHeap::instance() {
  static auto* heap = new DeviceHeap(std::size_t{64} << 30);  // Static objects may outlive it.
  return *heap;
}

// Reserves less if address space is limited.
DeviceHeap::DeviceHeap(std::size_t capacity) {
  constexpr std::size_t kLeast = std::size_t{1} << 20;
  for (reserved_ = std::max(capacity, kLeast); reserved_ >= kLeast; reserved_ /= 2) {
    base_ = static_cast<char*>(reserve(reserved_));
    state_ = base_ == nullptr ? nullptr : static_cast<uint8_t*>(reserve(reserved_));
    if (state_ != nullptr) {
      capacity_ = reserved_ - kGapBytes;  // An access at the end stays inside what is reserved.
      return;
    }
    if (base_ != nullptr) munmap(base_, reserved_);
  }
  throw std::bad_alloc();
}

DeviceHeap::~DeviceHeap() {
  munmap(base_, reserved_);
  munmap(state_, reserved_);
}

std::size_t DeviceHeap::find_gap(std::size_t bytes) const {
  // Searches from next_ to the end, then from the start, so that memory freed last is used last.
  for (std::size_t start : {next_, std::size_t{0}}) {
    std::size_t offset = start;
    auto next = allocations_.lower_bound(start);
    if (next != allocations_.begin()) {
      const auto& [before, allocation] = *std::prev(next);
      offset = std::max(offset, before + footprint(allocation.bytes));
    }
    for (; next != allocations_.end() && offset + bytes > next->first; ++next) {
      offset = next->first + footprint(next->second.bytes);
    }
    if (offset + bytes <= capacity_) return offset;
  }
  throw std::bad_alloc();
}

void* DeviceHeap::allocate(std::size_t bytes, int device) {
  const std::lock_guard lock(mutex_);
  if (bytes > capacity_ - kGapBytes) throw std::bad_alloc();
  const std::size_t offset = find_gap(footprint(bytes));
  allocations_[offset] = {bytes, device};
  next_ = offset + footprint(bytes);
  std::memset(state_ + offset, kUninitialized, bytes);
  if (bytes <= kMaxFilledBytes) std::memset(base_ + offset, 0xff, bytes);
  return base_ + offset;
}

bool DeviceHeap::release(void* pointer) {
  const std::lock_guard lock(mutex_);
  const auto found = contains(pointer) ? allocations_.find(offset_of(pointer)) : allocations_.end();
  if (found == allocations_.end()) return false;
  const auto [offset, allocation] = *found;
  allocations_.erase(found);
  std::memset(state_ + offset, kFree, allocation.bytes);
  // Gives whole pages inside the allocation and its gap back to the system.
  constexpr std::size_t kPage = 4096;
  const std::size_t first = (offset + kPage - 1) / kPage * kPage;
  const std::size_t last = (offset + allocation.bytes) / kPage * kPage;
  if (last > first) {
    madvise(base_ + first, last - first, MADV_DONTNEED);
    madvise(state_ + first, last - first, MADV_DONTNEED);
  }
  return true;
}

HeapFault DeviceHeap::read(const void* pointer, std::size_t size, std::size_t* first_bad) const {
  const uint8_t* state = state_ + offset_of(pointer);
  unsigned all = kInitialized;
  for (std::size_t i = 0; i < size; ++i) all &= state[i];
  if (all == kInitialized) return HeapFault::kNone;
  for (std::size_t i = 0; i < size; ++i) {
    if (state[i] == kInitialized) continue;
    *first_bad = i;
    return state[i] == kFree ? HeapFault::kOutOfBounds : HeapFault::kUninitialized;
  }
  return HeapFault::kNone;
}

HeapFault DeviceHeap::write(void* pointer, std::size_t size, std::size_t* first_bad) {
  uint8_t* state = state_ + offset_of(pointer);
  unsigned all = kInitialized;
  for (std::size_t i = 0; i < size; ++i) all &= state[i];
  if (all == kInitialized) return HeapFault::kNone;
  for (std::size_t i = 0; i < size; ++i) {
    if (state[i] == kFree) {
      *first_bad = i;
      return HeapFault::kOutOfBounds;
    }
  }
  std::memset(state, kInitialized, size);
  return HeapFault::kNone;
}

bool DeviceHeap::is_allocated(const void* pointer, std::size_t size) const {
  if (!contains(pointer) || size > capacity_ - offset_of(pointer)) return false;
  const uint8_t* state = state_ + offset_of(pointer);
  return std::find(state, state + size, kFree) == state + size;
}

void DeviceHeap::set_initialized(void* pointer, std::size_t size) {
  std::memset(state_ + offset_of(pointer), kInitialized, size);
}

std::size_t DeviceHeap::first_uninitialized(const void* pointer, std::size_t size) const {
  const uint8_t* state = state_ + offset_of(pointer);
  return static_cast<std::size_t>(std::find(state, state + size, kUninitialized) - state);
}

int DeviceHeap::device_of(const void* pointer) const {
  const std::lock_guard lock(mutex_);
  if (!contains(pointer)) return -1;
  const auto after = allocations_.upper_bound(offset_of(pointer));
  if (after == allocations_.begin()) return -1;
  const auto& [offset, allocation] = *std::prev(after);
  return offset_of(pointer) - offset < allocation.bytes ? allocation.device : -1;
}

std::string DeviceHeap::describe(const void* pointer) const {
  const std::lock_guard lock(mutex_);
  const std::size_t address = offset_of(pointer);
  const auto next = allocations_.upper_bound(address);
  if (next != allocations_.begin()) {
    const auto& [offset, allocation] = *std::prev(next);
    const std::size_t inside = address - offset;
    const std::string of = " of an allocation of " + std::to_string(allocation.bytes) + " bytes";
    if (inside < allocation.bytes) return "byte " + std::to_string(inside) + of;
    const std::size_t beyond = inside - allocation.bytes;
    if (next == allocations_.end() || beyond <= next->first - address) {
      return std::to_string(beyond) + " bytes past the end" + of;
    }
  }
  if (next == allocations_.end()) return "in freed memory";
  return std::to_string(next->first - address) + " bytes before an allocation of " +
         std::to_string(next->second.bytes) + " bytes";
}

std::size_t DeviceHeap::num_allocations() const {
  const std::lock_guard lock(mutex_);
  return allocations_.size();
}

}  // namespace simt::engine
