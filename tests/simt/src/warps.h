// Collectives of a warp: the lanes of a mask meet, and the last one to arrive does the work for
// all.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace simt::engine {

class Engine;
struct Thread;

inline constexpr uint32_t kAllLanes = 0xffffffffu;

/// One collective: its lanes, and the argument of each.
struct Collective {
  const char* name;  // "__shfl_sync"; lanes that meet must all have called the same.
  uint32_t mask;
  uint32_t arrived = 0;
  std::array<void*, 32> items{};  // Each lane's argument, on its own stack.
};

class Warp {
 public:
  using Work = void (*)(Engine& engine, Collective& collective);

  void start_block(int warp, uint32_t lanes);

  /// Waits for the other lanes of `mask` that have not exited. The last one calls `work`, then all
  /// continue. `aligned`: the instruction must be executed by all 32 lanes. `name` has static
  /// storage.
  void meet(Engine& engine, Thread& thread, const char* name, uint32_t mask, bool aligned,
            void* item, Work work);

  /// A lane has exited: collectives that waited for it may now be complete.
  void lane_exited(Engine& engine, int lane);

  uint32_t live_lanes() const { return live_; }

  /// "at __shfl_sync with mask 0x..., for lanes 0x...", for a lane that waits.
  std::string describe(int lane) const;

 private:
  struct Pending {
    Collective collective;
    Work work;
    bool aligned;
  };
  void check_mask(Engine& engine, const Thread& thread, const char* name, uint32_t mask,
                  bool aligned);
  void check_conflicts(Engine& engine, const Thread& thread, const char* name, uint32_t mask);
  void finish(Engine& engine, std::size_t index, const Thread* last);
  Thread& lane_thread(Engine& engine, int lane) const;

  int warp_ = 0;
  uint32_t live_ = 0;
  std::vector<Pending> pending_;
};

/// Lanes as text: "lanes 0-3, 7".
std::string lanes_text(uint32_t lanes);

}  // namespace simt::engine
