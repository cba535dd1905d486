// The shared memory window of the running block, and what the checker records of each byte: whether
// it is initialised, whether it is the target of a copy that has not been waited for, and who wrote
// and who read it last.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "clocks.h"

namespace simt::engine {

/// Volatile accesses are polling loops or flags: they race only with plain accesses, never with
/// atomics or each other.
enum class Access { kRead, kWrite, kAtomic, kVolatileRead, kVolatileWrite };

inline bool is_read(Access kind) { return kind == Access::kRead || kind == Access::kVolatileRead; }
inline bool is_write(Access kind) {
  return kind == Access::kWrite || kind == Access::kVolatileWrite;
}

/// Why an access was refused; kNone if it was not.
enum class Fault { kNone, kOutOfBounds, kUninitialized, kPending, kBeingRead, kReserved, kRace };

struct SharedFault {
  Fault fault = Fault::kNone;
  std::size_t offset = 0;  // First byte concerned.
  Stamp other = 0;         // kRace: the other actor's access.
  bool other_wrote = false;
};

class SharedMemory {
 public:
  static constexpr std::size_t kWindowBytes = 256 * 1024;
  static constexpr uint32_t kFirstAddress = 1024;  // Where the window begins.

  SharedMemory();
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  /// Starts a block with `bytes` bytes, none of them initialised. The contents become NaNs.
  void start_block(std::size_t bytes);

  char* base() const { return base_; }
  std::size_t bytes() const { return bytes_; }
  bool contains(const void* pointer) const {
    return reinterpret_cast<uintptr_t>(pointer) - reinterpret_cast<uintptr_t>(base_) < kWindowBytes;
  }
  std::size_t offset_of(const void* pointer) const {
    return static_cast<std::size_t>(static_cast<const char*>(pointer) - base_);
  }

  /// Checks an access by `actor` and records it.
  SharedFault access(std::size_t offset, std::size_t size, Access kind, int actor,
                     const Clocks& clocks);

  /// `actor` starts an asynchronous write: nobody may touch the bytes until finish_write(). Checked
  /// as a write.
  SharedFault begin_write(std::size_t offset, std::size_t size, int actor, const Clocks& clocks);

  /// `actor` has now written the bytes.
  void finish_write(std::size_t offset, std::size_t size, int actor, const Clocks& clocks);

  /// `actor` starts an asynchronous read: until finish_read() the bytes may be read, not written.
  /// Checked as a read. A byte may have up to 255 reads in flight.
  SharedFault begin_read(std::size_t offset, std::size_t size, int actor, const Clocks& clocks);
  void finish_read(std::size_t offset, std::size_t size);

  /// From reserve() to release() no access is allowed; after that the bytes are uninitialised.
  void reserve(std::size_t offset, std::size_t size);
  void release(std::size_t offset, std::size_t size);

  Stamp last_write(std::size_t offset) const { return written_[offset]; }
  std::array<Stamp, 2> thread_reads(std::size_t offset) const {
    return {thread_reads_.last[offset], thread_reads_.before[offset]};
  }

  /// Forgets all recorded reads and writes.
  void forget_accesses();

  bool check_memory = true;
  bool check_initialized = true;  // Makes sense only if all writes are seen.
  bool check_races = true;

 private:
  enum State : uint8_t {
    kUninitialized = 0,
    kInitialized = 1,
    kPending = 2,
    kBeingRead = 4,  // Set beside kInitialized.
    kReserved = 8,
  };

  SharedFault check_state(std::size_t offset, std::size_t size, Access kind);
  SharedFault check_race(std::size_t offset, std::size_t size, Access kind, int actor,
                         const Clocks& clocks);

  /// Per byte: the last reads of two actors, of different warps if possible. Two suffice to detect
  /// a write that no barrier separates from the reads: it is unordered with at least one of them,
  /// unless a smaller barrier separates it from exactly these two.
  struct LastReads {
    LastReads();
    void remember(std::size_t byte, Stamp stamp, Stamp floor);
    void forget();
    std::unique_ptr<Stamp[]> last;
    std::unique_ptr<Stamp[]> before;
  };
  LastReads& reads_of(int actor) { return actor < kMaxThreads ? thread_reads_ : unit_reads_; }

  char* base_ = nullptr;
  std::size_t bytes_ = 0;
  std::unique_ptr<uint8_t[]> state_;
  std::unique_ptr<uint8_t[]> readers_;  // Number of asynchronous reads in flight.
  std::unique_ptr<Stamp[]> written_;    // Per byte: the last write.
  LastReads thread_reads_;
  LastReads unit_reads_;  // Kept apart, because threads' reads must be fenced before a bulk copy.
};

}  // namespace simt::engine
