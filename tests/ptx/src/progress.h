// Finds out that a cluster runs in circles. Between two events (Cluster::events) what a warp does
// depends on its registers alone, as long as nobody writes the memory that it reads: a warp whose
// registers and program counters come round to what they were will do the same for ever. Where all
// warps do, or are blocked, nobody is left to write.
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

  /// Something happened.
  void reset();
  /// After a round in which nothing happened: whether all warps are known to run in circles.
  /// Looks only after `patience` such rounds, for it costs time.
  bool runs_in_circles(u64 patience);

 private:
  struct Watch {
    u64 kept = 0;  // A hash of the state.
    u64 age = 0, limit = 0;
    bool circles = false;
  };
  const Cluster& cluster_;
  std::vector<Watch> watches_;  // By warp, block after block.
  u64 quiet_rounds_ = 0;
};

}  // namespace ptxsim
