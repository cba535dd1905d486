// Vector clocks: see clocks.h.
// SPDX-License-Identifier: Apache-2.0
#include "clocks.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace simt::engine {

void Knowledge::make_own() {
  if (counts_ == nullptr) {
    counts_ = std::make_shared<Counts>();
    counts_->fill(0);
  } else if (counts_.use_count() > 1) {
    counts_ = std::make_shared<Counts>(*counts_);
  }
}

void Knowledge::learn(int actor, uint32_t count) {
  if (of(actor) >= count) return;
  make_own();
  (*counts_)[actor] = count;
}

void Knowledge::learn(const Knowledge& other) {
  if (other.counts_ == nullptr || other.counts_ == counts_) return;
  if (counts_ == nullptr) {
    counts_ = other.counts_;
    return;
  }
  make_own();
  for (int actor = 0; actor < kMaxActors; ++actor) {
    (*counts_)[actor] = std::max((*counts_)[actor], (*other.counts_)[actor]);
  }
}

namespace {

/// A count that wraps would order unordered accesses, and the reverse.
[[noreturn]] void fail_exhausted() {
  throw std::length_error(
      "simt: a block synchronises more often than its race checker can count, " +
      std::to_string(kMaxBlockCounts) + " times at least; see check_races");
}

}  // namespace

std::array<Stamp, kMaxActors> Clocks::initial_stamps() {
  std::array<Stamp, kMaxActors> stamps{};
  for (int actor = 0; actor < kMaxActors; ++actor) {
    stamps[actor] = (1u << kCountShift) | static_cast<Stamp>(actor);
  }
  return stamps;
}

void Clocks::set_count(int actor, uint32_t count) {
  if (count > kMaxCount) fail_exhausted();
  stamps_[actor] = (count << kCountShift) | static_cast<Stamp>(actor);
  last_ = std::max(last_, count);
}

void Clocks::order_all() {
  floor_ = ++last_;
  if (floor_ > kMaxCount) fail_exhausted();
  for (int actor = 0; actor < kMaxActors; ++actor) {
    stamps_[actor] = (floor_ << kCountShift) | static_cast<Stamp>(actor);
  }
  for (int actor : taught_) known_[actor].clear();
  taught_.clear();
}

void Clocks::release(int actor, Knowledge& object) {
  const uint32_t count = count_of(stamps_[actor]);
  object.learn(known_[actor]);
  object.learn(actor, count);
  set_count(actor, count + 1);
}

void Clocks::acquire(int actor, const Knowledge& object) {
  if (object.empty()) return;
  if (known_[actor].empty()) taught_.push_back(actor);
  known_[actor].learn(object);
}

void Clocks::inherit(int actor, int from) {
  if (known_[actor].empty()) taught_.push_back(actor);
  known_[actor].learn(known_[from]);
  inherit_count(actor, from);
}

void Clocks::inherit_count(int actor, int from) {
  if (known_[actor].empty()) taught_.push_back(actor);
  known_[actor].learn(from, count_of(stamps_[from]));
  advance(from);
}

void Clocks::meet(const int* actors, std::size_t count) {
  Knowledge all;
  for (std::size_t i = 0; i < count; ++i) all.learn(known_[actors[i]]);
  // Releases their own vectors first: if nobody else shares it, the one vector is then updated in
  // place.
  for (std::size_t i = 0; i < count; ++i) {
    if (known_[actors[i]].empty()) taught_.push_back(actors[i]);
    known_[actors[i]].clear();
  }
  for (std::size_t i = 0; i < count; ++i) {
    const uint32_t own = count_of(stamps_[actors[i]]);
    all.learn(actors[i], own);
    set_count(actors[i], own + 1);
  }
  for (std::size_t i = 0; i < count; ++i) known_[actors[i]] = all;
}

void Clocks::restart() {
  floor_ = 1;
  last_ = 1;
  stamps_ = initial_stamps();
  for (Knowledge& known : known_) known.clear();
  taught_.clear();
}

}  // namespace simt::engine
