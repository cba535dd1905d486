// SPDX-License-Identifier: Apache-2.0
#include "progress.h"

#include <algorithm>
#include <cstring>

namespace ptxsim {
namespace {

u64 mixed(u64 hash, u64 value) {
  constexpr u64 kOdd = 0x9e3779b97f4a7c15;
  hash = (hash ^ value) * kOdd;
  return hash ^ hash >> 29;
}

u64 state_hash(const Warp& warp) {
  u64 hash = 0;
  for (const Group& group : warp.groups) {
    hash = mixed(hash, u64{group.pc} << 32 | group.lanes);
    hash = mixed(hash, static_cast<u64>(group.state));
  }
  const u64 bytes = warp.kernel->function->register_bytes;
  for (u64 at = 0; at + sizeof(u64) <= bytes; at += sizeof(u64)) {
    u64 word = 0;
    std::memcpy(&word, warp.registers + at, sizeof word);
    hash = mixed(hash, word);
  }
  return hash;
}

}  // namespace

Progress::Progress(const Cluster& cluster) : cluster_(cluster) {
  for (const Block& block : cluster.blocks) {
    watches_.resize(watches_.size() + block.warps.size());
  }
}

void Progress::reset() {
  if (quiet_rounds_ == 0) return;
  quiet_rounds_ = 0;
  std::fill(watches_.begin(), watches_.end(), Watch{});
}

bool Progress::runs_in_circles(u64 patience) {
  if (++quiet_rounds_ <= patience) return false;
  bool all = true;
  std::size_t i = 0;
  for (const Block& block : cluster_.blocks) {
    for (const Warp& warp : block.warps) {
      Watch& watch = watches_[i++];
      if (watch.circles) continue;
      const u64 hash = state_hash(warp);
      watch.circles = watch.limit != 0 && hash == watch.kept;
      all = all && watch.circles;
      if (watch.age++ != watch.limit) continue;
      watch.kept = hash;
      watch.age = 0;
      watch.limit = 2 * watch.limit + 1;
    }
  }
  return all;
}

}  // namespace ptxsim
