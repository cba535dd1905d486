// Vector clocks: which accesses are ordered before which, for the race checker.
//
// Each thread counts up at every release. An access is stamped with its thread and that count; it
// is ordered before whatever thread t does next if t has learnt of that count, directly or through
// others. A barrier of the whole block teaches everything to everyone: instead of writing that into
// n vectors of n numbers, it raises one number, the floor, below which everything is ordered.
//
// Source: FastTrack (Flanagan and Freund, PLDI 2009), for the stamps.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace simt::engine {

inline constexpr int kMaxThreads = 1024;       // Of a block.
inline constexpr int kNumAgents = 16;          // Units that write memory beside the threads.
inline constexpr int kNumReservedAgents = 16;  // Others, each always of the same unit.
inline constexpr int kMaxActors = kMaxThreads + kNumAgents + kNumReservedAgents;

/// Count (20 bits), whether atomic (1 bit), actor (11 bits); 0 before any access.
using Stamp = uint32_t;
inline constexpr Stamp kAtomicBit = 1u << 11;
inline constexpr Stamp kActorMask = kAtomicBit - 1;
inline constexpr int kCountShift = 12;
inline constexpr uint32_t kMaxCount = (1u << (32 - kCountShift)) - 1;
/// Counts that every block is sure to have.
inline constexpr uint32_t kMaxBlockCounts = kMaxCount / 2;

constexpr int actor_of(Stamp stamp) { return static_cast<int>(stamp & kActorMask); }
constexpr uint32_t count_of(Stamp stamp) { return stamp >> kCountShift; }

/// What an actor, or an object that carries order between actors (a barrier, a flag), has learnt:
/// per actor the last count. Copies share until one of them changes.
class Knowledge {
 public:
  uint32_t of(int actor) const { return counts_ == nullptr ? 0 : (*counts_)[actor]; }
  bool empty() const { return counts_ == nullptr; }
  void clear() { counts_.reset(); }
  void learn(int actor, uint32_t count);
  void learn(const Knowledge& other);

 private:
  using Counts = std::array<uint32_t, kMaxActors>;
  void make_own();
  std::shared_ptr<Counts> counts_;
};

/// What an actor knew at some time.
struct View {
  Knowledge learnt;
  uint32_t least = 0;  // Of every actor.

  /// The last count of `actor` that it knew.
  uint32_t of(int actor) const { return std::max(learnt.of(actor), least); }
};

/// The clocks of a block's threads and agents.
class Clocks {
 public:
  /// Everything that any actor did so far is ordered before everything to come.
  void order_all();

  /// Stamp of an access that `actor` makes now.
  Stamp stamp(int actor) const { return stamps_[actor]; }

  /// Is the stamped access ordered before what `actor` does now?
  bool ordered(Stamp earlier, int actor) const {
    return count_of(earlier) < floor_ || actor_of(earlier) == actor ||
           known_[actor].of(actor_of(earlier)) >= count_of(earlier);
  }
  /// Stamps below this are ordered before everything.
  Stamp floor_stamp() const { return floor_ << kCountShift; }

  /// All that `actor` did, and knows of, becomes known to those who acquire `object`.
  void release(int actor, Knowledge& object);
  void acquire(int actor, const Knowledge& object);

  /// All that `from` did so far, and knows of, becomes known to `actor`, which works for it.
  void inherit(int actor, int from);
  /// Only what `from` did so far, not what it knows.
  void inherit_count(int actor, int from);

  /// What `actor` does from now on is told from what it did before.
  void advance(int actor) { set_count(actor, count_of(stamps_[actor]) + 1); }

  /// What `actor` knows now, for asking later.
  View view(int actor) const { return {known_[actor], floor_ - 1}; }

  /// All of these learn all that each of them did and knows: a barrier among some threads.
  void meet(const int* actors, std::size_t count);

  /// Whether a block may run out of counts. Then all stamps must be forgotten, and restart()
  /// called, before it starts: within a block stamps are needed.
  bool exhausted() const { return last_ > kMaxCount - kMaxBlockCounts; }
  void restart();

 private:
  void set_count(int actor, uint32_t count);

  uint32_t floor_ = 1;
  uint32_t last_ = 1;  // The largest count of any actor.
  std::array<Stamp, kMaxActors> stamps_ = initial_stamps();
  std::array<Knowledge, kMaxActors> known_;
  std::vector<int> taught_;  // Actors whose known_ may not be empty.

  static std::array<Stamp, kMaxActors> initial_stamps();
};

}  // namespace simt::engine
