// Vector clocks: which accesses are ordered before which, for the race checker.
//
// Each thread increments its count at every release. An access is stamped with its thread and
// count. It is ordered before whatever thread t does next if t has learnt of that count, directly
// or through others. A barrier of the whole block tells every thread everything: instead of writing
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

inline constexpr int kMaxThreads = 1024;       // Per block.
inline constexpr int kNumAgents = 16;          // Units that write memory beside the threads.
inline constexpr int kNumReservedAgents = 16;  // Other units, each with an agent of its own.
inline constexpr int kMaxActors = kMaxThreads + kNumAgents + kNumReservedAgents;

/// Count (20 bits), whether atomic (1 bit), actor (11 bits); 0 before any access.
using Stamp = uint32_t;
inline constexpr Stamp kAtomicBit = 1u << 11;
inline constexpr Stamp kActorMask = kAtomicBit - 1;
inline constexpr int kCountShift = 12;
inline constexpr uint32_t kMaxCount = (1u << (32 - kCountShift)) - 1;
/// Number of counts that every block is guaranteed.
inline constexpr uint32_t kMaxBlockCounts = kMaxCount / 2;

constexpr int actor_of(Stamp stamp) { return static_cast<int>(stamp & kActorMask); }
constexpr uint32_t count_of(Stamp stamp) { return stamp >> kCountShift; }

/// What an actor, or an object that carries order between actors (a barrier, a flag), has learnt:
/// the last count of each actor. Copies share storage until one of them changes.
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

/// What an actor knew at some point.
struct View {
  Knowledge learnt;
  uint32_t least = 0;  // Lower bound for every actor.

  /// The last count of `actor` that the owner of this view knew.
  uint32_t of(int actor) const { return std::max(learnt.of(actor), least); }
};

/// The clocks of a block's threads and agents.
class Clocks {
 public:
  /// Orders everything that any actor did so far before everything to come.
  void order_all();

  /// The stamp of an access that `actor` makes now.
  Stamp stamp(int actor) const { return stamps_[actor]; }

  /// Whether the stamped access is ordered before what `actor` does now.
  bool ordered(Stamp earlier, int actor) const {
    return count_of(earlier) < floor_ || actor_of(earlier) == actor ||
           known_[actor].of(actor_of(earlier)) >= count_of(earlier);
  }
  /// Stamps below this are ordered before everything.
  Stamp floor_stamp() const { return floor_ << kCountShift; }

  /// Whoever acquires `object` learns all that `actor` did, and all that it knows of.
  void release(int actor, Knowledge& object);
  void acquire(int actor, const Knowledge& object);

  /// `actor`, which works for `from`, learns all that `from` did so far, and all that it knows of.
  void inherit(int actor, int from);
  /// `actor` learns only what `from` did so far, not what it knows.
  void inherit_count(int actor, int from);

  /// Distinguishes what `actor` does from now on from what it did before.
  void advance(int actor) { set_count(actor, count_of(stamps_[actor]) + 1); }

  /// What `actor` knows now, for later queries.
  View view(int actor) const { return {known_[actor], floor_ - 1}; }

  /// Each of these learns all that any of them did and knows: a barrier among some threads.
  void meet(const int* actors, std::size_t count);

  /// Whether a block may run out of counts. If so, all stamps must be forgotten and restart()
  /// called before the block starts, because it needs its stamps while it runs.
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
