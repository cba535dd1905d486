// Positions of the selected scores of a row in its ascending list of indices, without a sort.
//
// Each thread gets 32 consecutive scores as two words of flags (above the threshold, equal to it),
// loaded by its warp in whole lines; prefix sums over the group then say where its selected scores
// go and how many of its ties are still among the first. Use, by one group:
//     Passed passed{};                                     // or what earlier parts of the row hold
//     for (begin = 0; begin < end; begin += kCompactionTile<Group>) {
//       const KeyFlags flags = flag_keys<Group>(keys, begin, end, threshold);
//       const Placement placement = place_selected<Group>(scan_storage, flags, threshold, passed);
//       for_each_selected<Group>(placement, begin, [&](position, index) { list[position] = index;
//       });
//     }
// where keys(i) is the order key (radix_search.h) of score i, from any memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/device/radix_search.h"
#include "cuda/device/scan.h"
#include "cuda/device/thread_group.h"

namespace minference::device {

/// Scores that a group flags and places at a time.
template <typename Group>
inline constexpr int32_t kCompactionTile = Group::kThreads * 32;

/// Bit t: score t of the thread's 32 scores is above the threshold, or equals it.
struct KeyFlags {
  uint32_t above = 0;
  uint32_t ties = 0;
};

/// Numbers of scores above and at the threshold.
struct Passed {
  int32_t above = 0;
  int32_t ties = 0;

  /// Both in one word, so that one scan sums both.
  __device__ uint64_t packed() const {
    return static_cast<uint64_t>(above) << 32 | static_cast<uint32_t>(ties);
  }
  __device__ static Passed unpacked(uint64_t word) {
    return {static_cast<int32_t>(word >> 32), static_cast<int32_t>(static_cast<uint32_t>(word))};
  }
};

/// Flags of the thread's scores: score 32 * thread + t of the tile that starts at `begin`. Scores
/// from `end` on are in neither word.
template <typename Group, typename Keys>
__device__ inline KeyFlags flag_keys(const Keys& keys, int32_t begin, int32_t end,
                                     const Threshold& threshold) {
  constexpr int kBatch = 8;  // Loads in flight per thread.
  const int lane = lane_index();
  const int32_t left = end - begin - Group::warp() * 1024;  // Scores from this warp's first on.
  KeyFlags flags;
#pragma unroll 1
  for (int first = 0; first < 32 && first * 32 < left; first += kBatch) {
    uint32_t key[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int32_t offset = (first + i) * 32 + lane;
      key[i] = offset < left ? keys(end - left + offset) : 0;
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const bool exists = (first + i) * 32 + lane < left;
      const uint32_t above = __ballot_sync(kFullWarp, exists && key[i] > threshold.key);
      const uint32_t ties = __ballot_sync(kFullWarp, exists && key[i] == threshold.key);
      if (lane == first + i) flags = {.above = above, .ties = ties};
    }
  }
  return flags;
}

/// Numbers of a thread's flags.
__device__ inline Passed count_flags(const KeyFlags& flags) {
  return {.above = __popc(flags.above), .ties = __popc(flags.ties)};
}

/// Where a thread's selected scores go.
struct Placement {
  int32_t first;      // Position of the first in the list of the row's selected scores.
  uint32_t selected;  // Bit t: score t is selected.
};

/// Places the tile's selected scores after those that `passed` before it; moves `passed` on.
template <typename Group>
__device__ inline Placement place_selected(ScanStorage<Group, Sum<uint64_t>>& storage,
                                           const KeyFlags& flags, const Threshold& threshold,
                                           Passed& passed) {
  const auto scan = exclusive_scan<Group>(storage, count_flags(flags).packed());
  const Passed before = Passed::unpacked(passed.packed() + scan.exclusive);
  passed = Passed::unpacked(passed.packed() + scan.total);
  const int32_t ties_before = before.ties < threshold.ties ? before.ties : threshold.ties;
  uint32_t ties = flags.ties;
  int32_t surplus = __popc(ties) - (threshold.ties - ties_before);
  // Clears the last ties: the first ones are selected.
  for (; surplus > 0; --surplus) ties &= ~(0x80000000u >> __clz(static_cast<int>(ties)));
  return {.first = before.above + ties_before, .selected = flags.above | ties};
}

/// Calls store(position, index) for the thread's selected scores of the tile at `begin`, ascending.
template <typename Group, typename Store>
__device__ inline void for_each_selected(const Placement& placement, int32_t begin,
                                         const Store& store) {
  int32_t position = placement.first;
  for (uint32_t left = placement.selected; left != 0; left &= left - 1) {
    store(position++, begin + Group::thread() * 32 + __ffs(static_cast<int>(left)) - 1);
  }
}

}  // namespace minference::device
