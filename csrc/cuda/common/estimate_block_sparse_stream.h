// Selection in one pass over the keys, for short lists: each row block keeps its best candidates in
// shared memory, and a threshold that only better ones pass.
//
// Scores come in ascending order of the key blocks, and candidates stay in that order: a list is
// ascending without a sort, and of equal scores the first wins. When a row block lacks space for
// another group, its warp raises the threshold until `room` candidates and a few more are left. The
// threshold never passes the room-th largest score, so nothing is lost that the list may hold. If n
// blocks come in random order, some room * (1 + ln(n / room)) pass: 600 of 16384 for 100 places.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/common/estimate_block_sparse_rows.h"

namespace minference::cuda::block_sparse {

inline constexpr int kSlots = (kCandidates + device::kWarpThreads - 1) / device::kWarpThreads;

/// The candidates of a row block in the registers of a warp: slot i of a lane is candidate 32 i +
/// lane. Keys past the end are 0, which no score has.
struct WarpCandidates {
  uint32_t keys[kSlots];
  uint16_t blocks[kSlots];
};

/// How much a row block keeps.
struct Budget {
  int32_t count;      // Candidates at most; more than 0.
  int32_t slack = 0;  // How many more may be kept if that is found sooner.
  bool by_mass = false;
  uint64_t mass = 0;  // By mass: the kept candidates stop at this mass ...
  float max = 0;      // ... relative to this score.
};

__device__ inline WarpCandidates load_candidates(const CandidateStorage& storage, int row,
                                                 int32_t count) {
  WarpCandidates candidates;
#pragma unroll
  for (int i = 0; i < kSlots; ++i) {
    const int slot = i * device::kWarpThreads + device::lane_index();
    candidates.keys[i] = slot < count ? device::order_key(storage.scores[row][slot]) : 0;
    candidates.blocks[i] = slot < count ? storage.blocks[row][slot] : uint16_t{0};
  }
  return candidates;
}

__device__ inline int32_t count_from(const WarpCandidates& candidates, uint32_t key) {
  int32_t count = 0;
#pragma unroll
  for (int i = 0; i < kSlots; ++i) count += candidates.keys[i] >= key ? 1 : 0;
  return __reduce_add_sync(device::kFullWarp, count);
}

__device__ inline uint64_t mass_from(const WarpCandidates& candidates, uint32_t key, float max) {
  uint64_t mass = 0;
#pragma unroll
  for (int i = 0; i < kSlots; ++i) {
    if (candidates.keys[i] >= key) mass += mass_of(candidates.keys[i], max);
  }
#pragma unroll
  for (int distance = 1; distance < device::kWarpThreads; distance *= 2) {
    mass += __shfl_xor_sync(device::kFullWarp, mass, distance);
  }
  return mass;
}

__device__ inline uint32_t largest_key(const WarpCandidates& candidates) {
  uint32_t largest = 0;
#pragma unroll
  for (int i = 0; i < kSlots; ++i) largest = max(largest, candidates.keys[i]);
  return __reduce_max_sync(device::kFullWarp, largest);
}

/// The largest threshold whose selection fills the budget, by bisection over the keys: 5 to 8 steps
/// with slack, at most 32. If nothing fills it, {0, 0}, which selects all. No candidate is below
/// `low`.
__device__ inline device::Threshold find_threshold(const WarpCandidates& candidates, uint32_t low,
                                                   const Budget& budget) {
  const auto fills = [&](int32_t count, uint32_t key) {
    return count >= budget.count ||
           (budget.by_mass && mass_from(candidates, key, budget.max) >= budget.mass);
  };
  if (!fills(count_from(candidates, low), low)) return {.key = 0, .ties = 0};
  uint32_t high =
      largest_key(candidates) + 1;  // A selection from here on does not fill the budget.
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    const int32_t count = count_from(candidates, middle);
    if (fills(count, middle)) {
      low = middle;
      if (count <= budget.count + budget.slack && !budget.by_mass) break;
    } else {
      high = middle;
    }
  }
  const int32_t count = count_from(candidates, low);
  if (count <= budget.count + budget.slack && !budget.by_mass) return {.key = low - 1, .ties = 0};
  const int32_t ties = budget.count - count_from(candidates, low + 1);
  if (!budget.by_mass) return {.key = low, .ties = ties};
  const uint64_t mass_left = budget.mass - mass_from(candidates, low + 1, budget.max);
  return {.key = low, .ties = ties_of(ties, mass_left, mass_of(low, budget.max))};
}

/// Calls store(position, key, block) for the selected candidates, ascending; returns their number.
template <typename Store>
__device__ inline int32_t select_candidates(const WarpCandidates& candidates,
                                            const device::Threshold& threshold,
                                            const Store& store) {
  int32_t count = 0;
  int32_t ties_left = threshold.ties;
#pragma unroll
  for (int i = 0; i < kSlots; ++i) {
    const bool tie = candidates.keys[i] == threshold.key;
    const uint32_t ties = __ballot_sync(device::kFullWarp, tie);
    const bool selected = candidates.keys[i] > threshold.key ||
                          (tie && __popc(ties & device::lanes_below()) < ties_left);
    ties_left -= min(ties_left, __popc(ties));
    const uint32_t all = __ballot_sync(device::kFullWarp, selected);
    if (selected) {
      store(count + __popc(all & device::lanes_below()), candidates.keys[i], candidates.blocks[i]);
    }
    count += __popc(all);
  }
  return count;
}

/// The candidates of a warp's 16 row blocks while keys stream past.
class CandidateStream {
 public:
  __device__ CandidateStream(CandidateStorage& storage, const BlockRow (&rows)[2])
      : storage_(storage), rows_{rows[0], rows[1]} {}

  /// Adds the scores of the group of 16 key blocks at `first_block`. The whole warp calls it.
  __device__ void add(int32_t first_block, const LaneScores& scores) {
    const int lane = device::lane_index();
    const int32_t first = first_block + lane % 4 * kLaneKeys;
    uint32_t passed[2], counts = 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      passed[half] = candidate_bits(first, rows_[half]);
#pragma unroll
      for (int i = 0; i < kLaneKeys; ++i) {
        if (scores.of[half][i] <= beaten_score_[half]) passed[half] &= ~(1u << i);
      }
      counts |= static_cast<uint32_t>(__popc(passed[half])) << 16 * half;
    }
    if (!__any_sync(device::kFullWarp, counts != 0)) return;

    const QuadSum sum = quad_sum(counts);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = tile_row(half, lane / 4);
      auto place = count_[half] + static_cast<int32_t>(sum.before >> 16 * half & 0xffff);
#pragma unroll
      for (int i = 0; i < kLaneKeys; ++i) {
        if ((passed[half] >> i & 1) == 0) continue;
        storage_.scores[row][place] = scores.of[half][i];
        storage_.blocks[row][place] = static_cast<uint16_t>(first + i);
        ++place;
      }
      count_[half] += static_cast<int32_t>(sum.total >> 16 * half & 0xffff);
    }
    make_room();
  }

  /// Writes the selected candidates of each row block to its list, and completes it. The whole warp
  /// calls it. By mass, `mass` and `share` say how much a list need hold.
  __device__ void finish(const TileLists& lists, bool by_mass, const RowMass (&mass)[2],
                         double share) {
    __syncwarp();  // Candidates of all lanes are written.
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint64_t wanted = by_mass ? mass[half].wanted(share) : 0;
#pragma unroll 1
      for (int quad = 0; quad < 8; ++quad) {
        const Budget budget{.count = of_quad(rows_[half].room, quad),
                            .by_mass = by_mass,
                            .mass = of_quad(wanted, quad),
                            .max = of_quad(mass[half].max, quad)};
        const uint32_t beaten = of_quad(beaten_[half], quad);
        const int row = tile_row(half, quad);
        const int32_t count = of_quad(count_[half], quad);
        int32_t selected = 0;
        if (count > 0 && !(by_mass && budget.mass == 0)) {
          const WarpCandidates candidates = load_candidates(storage_, row, count);
          int32_t* list = lists.of_row(row);
          selected = select_candidates(
              candidates, find_threshold(candidates, beaten, budget),
              [&](int32_t place, uint32_t, uint16_t block) { list[1 + place] = block; });
        }
        finish_list(lists, row, selected);
      }
    }
  }

 private:
  template <typename T>
  __device__ static T of_quad(T value, int quad) {
    return __shfl_sync(device::kFullWarp, value, quad * 4);
  }

  /// The score s for which "score <= s" means "key <= `key`". No score is negative zero; as s it
  /// would include zero, so the next lower score is returned instead.
  __device__ static float score_up_to(uint32_t key) {
    constexpr uint32_t kNegativeZero = 0x7fffffffu;
    return device::score_of(key == kNegativeZero ? key - 1 : key);
  }

  /// Thins out row blocks that lack space for another group.
  __device__ void make_room() {
    constexpr int32_t kFull = kCandidates - kGroupKeys;
    if (!__any_sync(device::kFullWarp, max(count_[0], count_[1]) > kFull)) return;
    __syncwarp();  // Candidates of all lanes are written.
    const int lane = device::lane_index();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t full = __ballot_sync(device::kFullWarp, lane % 4 == 0 && count_[half] > kFull);
      for (; full != 0; full &= full - 1) {
        const int quad = (__ffs(static_cast<int>(full)) - 1) / 4;
        const int row = tile_row(half, quad);
        const int32_t count = of_quad(count_[half], quad);
        const int32_t room = of_quad(rows_[half].room, quad);
        const WarpCandidates candidates = load_candidates(storage_, row, count);
        const device::Threshold threshold = find_threshold(
            candidates, of_quad(beaten_[half], quad), {.count = room, .slack = (count - room) / 4});
        __syncwarp();  // All have read what is now overwritten.
        const int32_t kept = select_candidates(
            candidates, threshold, [&](int32_t place, uint32_t key, uint16_t block) {
              storage_.scores[row][place] = device::score_of(key);
              storage_.blocks[row][place] = block;
            });
        if (lane / 4 == quad) {
          count_[half] = kept;
          // Later ones of equal keys lose.
          beaten_[half] = threshold.ties > 0 ? threshold.key : threshold.key + 1;
          beaten_score_[half] = score_up_to(beaten_[half]);
        }
      }
    }
    __syncwarp();  // All lanes see the freed places and the remaining candidates.
  }

  CandidateStorage& storage_;
  BlockRow rows_[2];
  int32_t count_[2] = {0, 0};
  /// Keys up to this are skipped: the row block has enough that are as large and came first. It has
  /// none that is smaller. It starts below the key of any score.
  uint32_t beaten_[2] = {1, 1};
  /// The same as a score, for a comparison without keys. Keys below those of scores are NaN, and no
  /// score is less than or equal to NaN.
  float beaten_score_[2] = {device::score_of(1), device::score_of(1)};
};

}  // namespace minference::cuda::block_sparse
