// When copies land: at once, as late as possible, or at random (Options::landing).
// SPDX-License-Identifier: Apache-2.0
#include "async_copies.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "state.h"

namespace ptxsim {
namespace {

bool lands_now(Warp& warp) {
  switch (options().landing) {
    case Landing::kAtOnce:
      return true;
    case Landing::kLate:
      return false;
    case Landing::kRandom:
      break;
  }
  return warp.cluster->random() % 2 == 0;
}

// ---- cp.async ----------------------------------------------------------------------------------

void move(ThreadCopy& copy) {
  if (copy.landed) return;
  copy.landed = true;
  if (copy.bytes != 0) std::memcpy(copy.to, copy.from, copy.bytes);
  std::memset(copy.to + copy.bytes, 0, copy.zeros);
}

/// The lane now knows that its first `count` copies are complete. They went through the generic
/// proxy.
void complete_first(Warp& warp, u32 lane, std::ptrdiff_t count) {
  std::vector<ThreadCopy>& pending = warp.copies.pending[lane];
  const auto end = pending.begin() + count;
  for (auto copy = pending.begin(); copy != end; ++copy) {
    move(*copy);
    if (options().check) note_generic_write(warp, lane, copy->to, copy->bytes + copy->zeros);
  }
  pending.erase(pending.begin(), end);
}

template <class Predicate>
void complete_while(Warp& warp, u32 lane, Predicate is_awaited) {
  const std::vector<ThreadCopy>& pending = warp.copies.pending[lane];
  const auto end = std::find_if_not(pending.begin(), pending.end(), is_awaited);
  complete_first(warp, lane, end - pending.begin());
}

// ---- Bulk copies -------------------------------------------------------------------------------

/// Runs a step of a copy; its errors name the instruction that issued the copy.
void run_step(PendingCopy& copy, const std::function<void()>& step) {
  if (!step) return;
  const Op* const running = std::exchange(copy.warp->op, copy.op);
  step();
  copy.warp->op = running;
}

void read_source(PendingCopy& copy) {
  if (std::exchange(copy.was_read, true)) return;
  run_step(copy, copy.read);
}

void land(PendingCopy& copy) {
  if (std::exchange(copy.has_landed, true)) return;
  read_source(copy);
  run_step(copy, copy.land);
  ++copy.warp->cluster->events;
}

/// A load is done when it lands; a store's issuer must still wait for it.
void land_and_forget(PendingCopies& pending, PendingCopies::iterator at) {
  if (!at->is_load) return land(*at);
  PendingCopy copy = std::move(*at);
  pending.erase(at);
  land(copy);
}

/// A store that lands at random first reads, then writes.
bool land_at_random(Cluster& cluster) {
  PendingCopies& pending = cluster.pending;
  const auto is_left = [](const PendingCopy& copy) { return !copy.has_landed; };
  const auto num_left = std::count_if(pending.begin(), pending.end(), is_left);
  if (num_left == 0) return false;
  auto at = std::find_if(pending.begin(), pending.end(), is_left);
  for (u64 skip = cluster.random() % static_cast<u64>(num_left); skip != 0; --skip) {
    at = std::find_if(at + 1, pending.end(), is_left);
  }
  if (!at->is_load && !at->was_read) {
    read_source(*at);
    return true;
  }
  land_and_forget(pending, at);
  return true;
}

}  // namespace

void issue_thread_copy(Warp& warp, u32 lane, ThreadCopy copy) {
  ThreadCopies& copies = warp.copies;
  copy.group = copies.open_group[lane];
  copy.number = copies.issued[lane]++;
  if (lands_now(warp)) move(copy);
  copies.pending[lane].push_back(copy);
}

void wait_thread_groups(Warp& warp, u32 lane, u32 num_left) {
  const u32 open = warp.copies.open_group[lane];
  complete_while(warp, lane, [&](const ThreadCopy& copy) { return copy.group + num_left < open; });
}

void wait_thread_copies(Warp& warp, u32 lane, u64 end) {
  complete_while(warp, lane, [&](const ThreadCopy& copy) { return copy.number < end; });
}

void issue_bulk_copy(Warp& warp, PendingCopy copy) {
  copy.op = warp.op;
  ++warp.cluster->events;
  if (options().landing == Landing::kAtOnce) {
    land(copy);
    if (copy.is_load) return;
  }
  warp.cluster->pending.push_back(std::move(copy));
}

void wait_bulk_groups(Warp& warp, u32 lane, u32 num_left, bool only_read) {
  PendingCopies& pending = warp.cluster->pending;
  const u32 open = warp.bulk_groups.open[lane];
  const auto is_awaited = [&](const PendingCopy& copy) {
    return copy.warp == &warp && copy.lane == lane && !copy.is_load && copy.group + num_left < open;
  };
  for (PendingCopy& copy : pending) {
    if (!is_awaited(copy)) continue;
    copy.source_is_free = true;
    read_source(copy);
    if (!only_read) land(copy);
  }
  if (only_read) return;
  pending.erase(std::remove_if(pending.begin(), pending.end(), is_awaited), pending.end());
}

bool land_one(Cluster& cluster, bool at_random) {
  if (at_random) return land_at_random(cluster);
  PendingCopies& pending = cluster.pending;
  const auto oldest = std::find_if(pending.begin(), pending.end(),
                                   [](const PendingCopy& copy) { return copy.is_load; });
  if (oldest == pending.end()) return false;
  land_and_forget(pending, oldest);
  return true;
}

void land_all(Cluster& cluster) {
  while (!cluster.pending.empty()) {
    PendingCopy copy = std::move(cluster.pending.front());
    cluster.pending.pop_front();
    land(copy);
  }
}

void check_exit_copies(Warp& warp, u32 lanes) {
  for (const PendingCopy& copy : warp.cluster->pending) {
    if (copy.warp != &warp || copy.is_load || copy.source_is_free) continue;
    if ((lanes >> copy.lane & 1) == 0) continue;
    fail(warp,
         "exit while a bulk store may still read shared memory: no cp.async.bulk.wait_group for "
         "it",
         1u << copy.lane);
  }
}

}  // namespace ptxsim
