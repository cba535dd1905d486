// Detects that a cluster runs in circles. Between two events (Cluster::events), what a warp does
// depends only on its registers, as long as nobody writes the memory that it reads. A warp whose
// registers and program counters return to an earlier state will repeat itself forever. If all
// warps do so, or are blocked, nobody is left to write.
// Source: R. P. Brent, An improved Monte Carlo factorization algorithm (1980), section 2: the state
// is kept at powers of two.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "state.h"

namespace ptxsim {

class Progress {
 public:
  explicit Progress(const Cluster& cluster);

  /// An event has happened.
  void reset();
  /// Called after a round without an event: whether all warps are known to run in circles. Looks
  /// only after `patience` such rounds, because it costs time.
  bool runs_in_circles(u64 patience);

 private:
  struct Watch {
    u64 kept = 0;  // Hash of the state.
    u64 age = 0, limit = 0;
    bool circles = false;
  };
  const Cluster& cluster_;
  std::vector<Watch> watches_;  // One per warp, block after block.
  u64 quiet_rounds_ = 0;
};

}  // namespace ptxsim
