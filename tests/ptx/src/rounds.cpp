// Runs a cluster's warps in turn, until all have exited or none can go on.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <thread>

#include "cluster.h"
#include "groups.h"
#include "progress.h"
#include "schedule.h"

namespace ptxsim {
namespace {

constexpr u64 kQuantum = 4096;  // Instructions per turn.
constexpr u64 kMaxRandomQuantum = 2000;
constexpr u64 kOneIn = 4;  // kRandom: one in so many turns lands a copy.
// Number of rounds without an event: before the first check whether warps run in circles, because a
// long computation is more likely; and before a late copy lands, because a loop around a poll may
// need more than one.
constexpr u64 kBusyPatience = 64;
constexpr u64 kIdlePatience = 4;

struct Round {
  bool exited = true;  // All warps have exited.
  bool busy = false;   // Some warp used up its turn.
};

class Rounds {
 public:
  Rounds(Cluster& cluster, const std::function<bool()>& is_first)
      : cluster_(cluster), is_first_(is_first), progress_(cluster) {
    for (Block& block : cluster.blocks) {
      for (Warp& warp : block.warps) warps_.push_back(&warp);
    }
  }

  void run() {
    while (true) {
      const u64 events = cluster_.events;
      const Round round = run_round();
      if (round.exited) return;
      if (cluster_.events != events) {
        reset();
        continue;
      }
      idle_rounds_ = round.busy ? 0 : idle_rounds_ + 1;
      if (idle_rounds_ >= kIdlePatience && land()) continue;
      if (!progress_.runs_in_circles(round.busy ? kBusyPatience : kIdlePatience)) continue;
      if (land() || take_turns()) continue;
      if (!was_first_) {  // Another host thread may have written meanwhile: check again.
        was_first_ = is_first_();
        progress_.reset();
        std::this_thread::yield();
        continue;
      }
      fail_deadlock(round.busy);
    }
  }

 private:
  bool is_random() const { return options().landing == Landing::kRandom; }

  Round run_round() {
    if (is_random()) std::shuffle(warps_.begin(), warps_.end(), cluster_.random);
    Round round;
    for (Warp* const warp : warps_) {
      if (warp->groups.empty()) continue;
      const TurnEnd end = run_warp(*warp, quantum());
      round.exited = round.exited && end == TurnEnd::kExited;
      round.busy = round.busy || end == TurnEnd::kQuantum;
      if (is_random() && cluster_.random() % kOneIn == 0) {
        cluster_.events += land_one(cluster_, /*at_random=*/true);
      }
    }
    return round;
  }

  u64 quantum() { return is_random() ? 1 + cluster_.random() % kMaxRandomQuantum : kQuantum; }

  void reset() {
    idle_rounds_ = 0;
    progress_.reset();
    if (!taking_turns_) return;
    taking_turns_ = false;
    for (Warp* const warp : warps_) warp->takes_turns = false;
  }

  bool land() {
    if (!land_one(cluster_, is_random())) return false;
    reset();
    return true;
  }

  /// Some lanes of a warp run in circles; other lanes, which are further on, may end that.
  bool take_turns() {
    if (taking_turns_) return false;
    for (Warp* const warp : warps_) {
      warp->takes_turns = num_ready(*warp) > 1;
      taking_turns_ = taking_turns_ || warp->takes_turns;
    }
    if (taking_turns_) progress_.reset();
    return taking_turns_;
  }

  [[noreturn]] void fail_deadlock(bool busy) const {
    const std::string& name = cluster_.launch->kernel->function->name;
    const char* const what =
        busy ? ": polls for nothing: threads run in circles, and no other thread of the cluster "
               "changes what they wait for (clusters run one after another)"
             : ": deadlock: no thread can go on";
    throw Error(name + what + describe(cluster_));
  }

  Cluster& cluster_;
  const std::function<bool()>& is_first_;
  Progress progress_;
  std::vector<Warp*> warps_;
  u64 idle_rounds_ = 0;
  bool taking_turns_ = false;
  bool was_first_ = false;
};

}  // namespace

void run_cluster(Cluster& cluster, const std::function<bool()>& is_first) {
  Rounds(cluster, is_first).run();
  land_all(cluster);
}

}  // namespace ptxsim
