// Shared memory and its checker: see shared_memory.h.
// SPDX-License-Identifier: Apache-2.0
#include "shared_memory.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

namespace simt::engine {
namespace {

constexpr std::size_t kAlignment = 1024;

/// Units other than threads count as warps of their own.
int warp_of(Stamp stamp) {
  const int actor = actor_of(stamp);
  return actor < kMaxThreads ? actor / 32 : actor;
}

bool all_equal(const Stamp* stamps, std::size_t size, Stamp value) {
  Stamp difference = 0;
  for (std::size_t i = 0; i < size; ++i) difference |= stamps[i] ^ value;
  return difference == 0;
}

bool all_below(const Stamp* stamps, std::size_t size, Stamp floor) {
  bool below = true;
  for (std::size_t i = 0; i < size; ++i) below &= stamps[i] < floor;
  return below;
}

/// Index of the first stamp that is not ordered before `actor`'s access; `size` if all are.
std::size_t first_unordered(const Stamp* stamps, std::size_t size, Access kind, int actor,
                            const Clocks& clocks) {
  if (all_below(stamps, size, clocks.floor_stamp())) return size;
  for (std::size_t i = 0; i < size; ++i) {
    if ((stamps[i] & kAtomicBit) != 0 && kind != Access::kRead && kind != Access::kWrite) continue;
    if (!clocks.ordered(stamps[i], actor)) return i;
  }
  return size;
}

}  // namespace

SharedMemory::LastReads::LastReads()
    : last(std::make_unique<Stamp[]>(kWindowBytes)),
      before(std::make_unique<Stamp[]>(kWindowBytes)) {}

SharedMemory::SharedMemory()
    : state_(std::make_unique<uint8_t[]>(kWindowBytes)),
      readers_(std::make_unique<uint8_t[]>(kWindowBytes)),
      written_(std::make_unique<Stamp[]>(kWindowBytes)) {
  // Pages are 4 KiB, so the base has the alignment that dynamic_shared() promises.
  void* memory =
      mmap(nullptr, kWindowBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  base_ = static_cast<char*>(memory);
  static_assert(4096 % kAlignment == 0);
}

SharedMemory::~SharedMemory() { munmap(base_, kWindowBytes); }

void SharedMemory::start_block(std::size_t bytes) {
  bytes_ = bytes;
  std::memset(state_.get(), kUninitialized, bytes);
  std::memset(readers_.get(), 0, bytes);
  std::memset(base_, 0xff, bytes);
}

SharedFault SharedMemory::access(std::size_t offset, std::size_t size, Access kind, int actor,
                                 const Clocks& clocks) {
  if (offset > bytes_ || size > bytes_ - offset) {
    return {check_memory ? Fault::kOutOfBounds : Fault::kNone, offset, 0, false};
  }
  if (check_memory) {
    const SharedFault fault = check_state(offset, size, kind);
    if (fault.fault != Fault::kNone) return fault;
  }
  return check_races ? check_race(offset, size, kind, actor, clocks) : SharedFault{};
}

SharedFault SharedMemory::check_state(std::size_t offset, std::size_t size, Access kind) {
  uint8_t* state = state_.get() + offset;
  bool initialized = true;
  for (std::size_t i = 0; i < size; ++i) initialized &= state[i] == kInitialized;
  if (initialized) return {};
  for (std::size_t i = 0; i < size; ++i) {
    if ((state[i] & kPending) != 0) return {Fault::kPending, offset + i, 0, false};
    if ((state[i] & kReserved) != 0) return {Fault::kReserved, offset + i, 0, false};
    if ((state[i] & kBeingRead) != 0 && !is_read(kind)) {
      return {Fault::kBeingRead, offset + i, 0, false};
    }
    if (is_write(kind)) {
      state[i] = kInitialized;
    } else if (check_initialized && state[i] == kUninitialized) {
      return {Fault::kUninitialized, offset + i, 0, false};
    }
  }
  return {};
}

SharedFault SharedMemory::check_race(std::size_t offset, std::size_t size, Access kind, int actor,
                                     const Clocks& clocks) {
  const Stamp stamp = clocks.stamp(actor);
  Stamp* written = written_.get() + offset;
  if (is_read(kind)) {
    LastReads& reads = reads_of(actor);
    if (all_equal(reads.last.get() + offset, size, stamp)) return {};  // Checked when first read.
    const std::size_t race = first_unordered(written, size, kind, actor, clocks);
    if (race < size) return {Fault::kRace, offset + race, written[race], true};
    for (std::size_t i = 0; kind == Access::kRead && i < size; ++i) {
      reads.remember(offset + i, stamp, clocks.floor_stamp());
    }
    return {};
  }
  std::size_t race = first_unordered(written, size, kind, actor, clocks);
  if (race < size) return {Fault::kRace, offset + race, written[race], true};
  for (const Stamp* all : {thread_reads_.last.get(), thread_reads_.before.get(),
                           unit_reads_.last.get(), unit_reads_.before.get()}) {
    const Stamp* readers = all + offset;
    race = first_unordered(readers, size, kind, actor, clocks);
    if (race < size) return {Fault::kRace, offset + race, readers[race], false};
  }
  const Stamp mark = kind == Access::kWrite ? stamp : stamp | kAtomicBit;
  for (std::size_t i = 0; i < size; ++i) written[i] = mark;
  return {};
}

void SharedMemory::LastReads::remember(std::size_t byte, Stamp stamp, Stamp floor) {
  Stamp& newest = last[byte];
  Stamp& other = before[byte];
  const bool replaces = newest < floor || actor_of(newest) == actor_of(stamp);
  const bool same_warp_as_newest = warp_of(newest) == warp_of(stamp);
  const bool keep_other = other >= floor && warp_of(other) != warp_of(stamp);
  if (!replaces && !(same_warp_as_newest && keep_other)) other = newest;
  newest = stamp;
}

void SharedMemory::LastReads::forget() {
  std::memset(last.get(), 0, kWindowBytes * sizeof(Stamp));
  std::memset(before.get(), 0, kWindowBytes * sizeof(Stamp));
}

SharedFault SharedMemory::begin_write(std::size_t offset, std::size_t size, int actor,
                                      const Clocks& clocks) {
  const SharedFault fault = access(offset, size, Access::kWrite, actor, clocks);
  if (fault.fault != Fault::kNone) return fault;
  if (check_memory && offset <= bytes_ && size <= bytes_ - offset) {
    std::memset(state_.get() + offset, kPending, size);
  }
  return {};
}

void SharedMemory::finish_write(std::size_t offset, std::size_t size, int actor,
                                const Clocks& clocks) {
  if (offset > bytes_ || size > bytes_ - offset) return;
  std::memset(state_.get() + offset, kInitialized, size);
  const Stamp stamp = clocks.stamp(actor);
  for (std::size_t i = 0; i < size; ++i) written_[offset + i] = stamp;
}

SharedFault SharedMemory::begin_read(std::size_t offset, std::size_t size, int actor,
                                     const Clocks& clocks) {
  const SharedFault fault = access(offset, size, Access::kRead, actor, clocks);
  if (fault.fault != Fault::kNone) return fault;
  if (check_memory && offset <= bytes_ && size <= bytes_ - offset) {
    for (std::size_t i = offset; i < offset + size; ++i) {
      ++readers_[i];
      state_[i] |= kBeingRead;
    }
  }
  return {};
}

void SharedMemory::finish_read(std::size_t offset, std::size_t size) {
  if (!check_memory || offset > bytes_ || size > bytes_ - offset) return;
  for (std::size_t i = offset; i < offset + size; ++i) {
    if (--readers_[i] == 0) state_[i] &= static_cast<uint8_t>(~kBeingRead);
  }
}

void SharedMemory::reserve(std::size_t offset, std::size_t size) {
  if (check_memory) std::memset(state_.get() + offset, kReserved, size);
}

void SharedMemory::release(std::size_t offset, std::size_t size) {
  if (check_memory) std::memset(state_.get() + offset, kUninitialized, size);
}

void SharedMemory::forget_accesses() {
  std::memset(written_.get(), 0, kWindowBytes * sizeof(Stamp));
  thread_reads_.forget();
  unit_reads_.forget();
}

}  // namespace simt::engine
