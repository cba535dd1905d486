// The largest scores of a row: first the key of the k-th largest, digit by digit, then the
// positions of all selected ones. Each digit takes a histogram over the scores that share the
// digits known so far, and the bin in which the k-th largest lies.
//
// Use, by one group, with histogram and storage in shared memory:
//     RadixSearch search = start_search(count);            // or with a budget by mass
//     for (int digit = 0; digit < kRadixDigits; ++digit) {
//       clear<Group>(histogram);                           // then group sync
//       tally(histogram, digit, search.prefix, order_key(score)) for each score
//       Group::sync();
//       search = settle_digit<Group>(storage, histogram, digit, search);
//     }
//     Threshold threshold = threshold_of<Histogram>(search);
// Several blocks may share a row: each counts its part in shared memory and adds that to one
// histogram in global memory, which settle_digit reads in the next kernel.
//
// With a budget by mass the search stops at the first score, from the largest, at which the sum
// reaches the budget. Masses are integers, so that sums do not depend on the order of the atomics.
// Source of the method: radix selection as in cpu/top_k.cpp.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/device/thread_group.h"

namespace minference::device {

/// 11 + 11 + 10 bits: a histogram of counts takes 8 KiB of shared memory.
inline constexpr int kRadixDigits = 3;
inline constexpr int kRadixBins = 2048;

__device__ constexpr int digit_shift(int digit) { return digit == 0 ? 21 : digit == 1 ? 10 : 0; }
__device__ constexpr int digit_bins(int digit) { return digit == 2 ? 1024 : 2048; }
/// The bits above a digit.
__device__ constexpr uint32_t bits_above(int digit) {
  return digit == 0 ? 0u : ~0u << digit_shift(digit - 1);
}

/// Unsigned integers in the order of the floats.
__device__ inline uint32_t order_key(float score) {
  const uint32_t bits = __float_as_uint(score);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

/// The score of an order key.
__device__ inline float score_of(uint32_t key) {
  return __uint_as_float((key >> 31) != 0 ? key & 0x7fffffffu : ~key);
}

/// A score in units of 2^-52, rounded down: exact from 2^-29 on. A score above 64 counts as 64, the
/// sum of 64 rows of probabilities; NaN counts as 0.
__device__ inline uint64_t mass_of(float score) {
  if (!(score > 0)) return 0;
  constexpr float kUnits = 4503599627370496.0f;  // 2^52
  return static_cast<uint64_t>((score < 64.0f ? score : 64.0f) * kUnits);
}

/// Number of scores in each bin of a digit.
struct CountHistogram {
  static constexpr bool kByMass = false;
  int32_t counts[kRadixBins];
};

/// The same, and the masses of the bins. Each mass is in two halves: shared memory adds 32 bits
/// natively, but 64 bits only in a compare-and-swap loop, in which lanes on one bin take turns.
struct MassHistogram {
  static constexpr bool kByMass = true;
  int32_t counts[kRadixBins];
  uint32_t low[kRadixBins];
  uint32_t high[kRadixBins];
};

/// The k-th largest score while the search is under way. Aligned for one 16-byte load or store.
struct alignas(16) RadixSearch {
  uint32_t prefix = 0;  // The digits found so far, in place.
  int32_t count_left =
      0;  // The result is the count_left-th largest of the scores with this prefix, ...
  uint64_t mass_left = 0;  // ... unless their sum reaches this first.
};

/// The largest `count` scores, or fewer, if fewer sum to `mass`.
__device__ inline RadixSearch start_search(int32_t count, uint64_t mass = ~uint64_t{0}) {
  return {.prefix = 0, .count_left = count, .mass_left = mass};
}

template <typename Group, typename Histogram>
__device__ inline void clear(Histogram& histogram) {
  for (int bin = Group::thread(); bin < kRadixBins; bin += Group::kThreads) {
    histogram.counts[bin] = 0;
    if constexpr (Histogram::kByMass) histogram.low[bin] = histogram.high[bin] = 0;
  }
}

__device__ inline void add_mass(MassHistogram& histogram, int bin, uint64_t mass) {
  const auto low = static_cast<uint32_t>(mass);
  // The add that wraps around carries, so the 64-bit sum is right in any order.
  const bool carry = atomicAdd(&histogram.low[bin], low) > ~low;
  const uint32_t high = static_cast<uint32_t>(mass >> 32) + (carry ? 1u : 0u);
  if (high != 0) atomicAdd(&histogram.high[bin], high);
}

/// Counts a score if its digits above `digit` are those of `prefix`. Any thread, any order.
template <typename Histogram>
__device__ inline void tally(Histogram& histogram, int digit, uint32_t prefix, uint32_t key) {
  if ((key & bits_above(digit)) != prefix) return;
  const int bin = static_cast<int>(key >> digit_shift(digit)) & (digit_bins(digit) - 1);
  atomicAdd(&histogram.counts[bin], 1);
  if constexpr (Histogram::kByMass) add_mass(histogram, bin, mass_of(score_of(key)));
}

/// Adds a block's part of a histogram to the row's.
template <typename Group, typename Histogram>
__device__ inline void add_histogram(const Histogram& part, Histogram& row, int digit) {
  for (int bin = Group::thread(); bin < digit_bins(digit); bin += Group::kThreads) {
    if (part.counts[bin] == 0) continue;
    atomicAdd(&row.counts[bin], part.counts[bin]);
    if constexpr (Histogram::kByMass) {
      add_mass(row, bin, uint64_t{part.high[bin]} << 32 | part.low[bin]);
    }
  }
}

/// What some bins hold.
struct Tally {
  int32_t count = 0;
  uint64_t mass = 0;
};

template <typename Histogram>
__device__ inline Tally tally_of_bin(const Histogram& histogram, int bin) {
  Tally tally{.count = histogram.counts[bin]};
  if constexpr (Histogram::kByMass) {
    tally.mass = uint64_t{histogram.high[bin]} << 32 | histogram.low[bin];
  }
  return tally;
}

template <typename Group>
struct RadixStorage {
  ScanStorage<Group, Sum<int32_t>> counts;
  ScanStorage<Group, Sum<uint64_t>> masses;
  RadixSearch found;
};

/// The mass of all counted scores, from which a budget is taken.
template <typename Group>
__device__ inline uint64_t total_mass(RadixStorage<Group>& storage,
                                      const MassHistogram& histogram) {
  uint64_t mass = 0;
  for (int bin = Group::thread(); bin < kRadixBins; bin += Group::kThreads) {
    mass += tally_of_bin(histogram, bin).mass;
  }
  return exclusive_scan<Group>(storage.masses, mass).total;
}

/// Finds the bin of `digit` in which the search ends, and narrows the search to it. The histogram
/// must be complete and visible to the group.
template <typename Group, typename Histogram>
__device__ inline RadixSearch settle_digit(RadixStorage<Group>& storage, const Histogram& histogram,
                                           int digit, const RadixSearch& search) {
  const auto reached = [&](const Tally& tally) {
    return tally.count >= search.count_left ||
           (Histogram::kByMass && tally.mass >= search.mass_left);
  };
  // Thread 0 has the highest bins.
  const int bins_per_thread = digit_bins(digit) / Group::kThreads;
  const int first_bin = digit_bins(digit) - 1 - Group::thread() * bins_per_thread;
  Tally own;
  for (int i = 0; i < bins_per_thread; ++i) {
    const Tally bin = tally_of_bin(histogram, first_bin - i);
    own.count += bin.count;
    own.mass += bin.mass;
  }
  // If masses overflow 64 bits, no thread may find the end; this is the result then. The barriers
  // of the scan order this write before the real result.
  if (Group::thread() == 0) storage.found = {.prefix = search.prefix};
  Tally above{.count = exclusive_scan<Group>(storage.counts, own.count).exclusive};
  if constexpr (Histogram::kByMass) {
    above.mass = exclusive_scan<Group>(storage.masses, own.mass).exclusive;
  }
  const bool ended_before = Group::thread() > 0 && reached(above);
  if (!ended_before && reached({above.count + own.count, above.mass + own.mass})) {
    int bin = first_bin;
    for (Tally with = tally_of_bin(histogram, bin);; with = tally_of_bin(histogram, --bin)) {
      with.count += above.count;
      with.mass += above.mass;
      if (reached(with) || bin == first_bin - bins_per_thread + 1) break;
      above = with;
    }
    storage.found = {.prefix = search.prefix | static_cast<uint32_t>(bin) << digit_shift(digit),
                     .count_left = search.count_left - above.count,
                     .mass_left = search.mass_left - above.mass};
  }
  Group::sync();  // The result is written.
  const RadixSearch found = storage.found;
  Group::sync();  // All have read it: the storage may be written again.
  return found;
}

/// Selects all keys above `key`, and the first `ties` keys that equal it.
struct Threshold {
  uint32_t key;
  int32_t ties;
};

/// The search's result once all digits are settled.
template <typename Histogram>
__device__ inline Threshold threshold_of(const RadixSearch& search) {
  Threshold threshold{.key = search.prefix, .ties = search.count_left};
  if constexpr (Histogram::kByMass) {
    const uint64_t mass = mass_of(score_of(search.prefix));
    if (search.mass_left == 0) {
      threshold.ties = 0;
    } else if (mass > 0) {
      const uint64_t needed = (search.mass_left - 1) / mass + 1;
      if (needed < static_cast<uint64_t>(search.count_left)) {
        threshold.ties = static_cast<int32_t>(needed);
      }
    }
  }
  return threshold;
}

// ---- Ordered compaction -------------------------------------------------------------------------
//
// Places the selected scores of a row in its ascending list of indices, without a sort.
//
// Each thread gets 32 consecutive scores as two words of flags (above the threshold, equal to it),
// which its warp loads in whole lines. Prefix sums over the group then give the position of its
// selected scores and how many of its ties are still selected. Use, by one group:
//     Passed passed{};                                     // or the counts of earlier parts of the
//     row for (begin = 0; begin < end; begin += kCompactionTile<Group>) {
//       const KeyFlags flags = flag_keys<Group>(keys, begin, end, threshold);
//       const Placement placement = place_selected<Group>(scan_storage, flags, threshold, passed);
//       for_each_selected<Group>(placement, begin, [&](position, index) { list[position] = index;
//       });
//     }
// where keys(i) is the order key of score i, from any memory.

/// Scores that a group flags and places at a time.
template <typename Group>
inline constexpr int32_t kCompactionTile = Group::kThreads * 32;

/// Bit t is set if score t of the thread's 32 scores is above the threshold, or equals it.
struct KeyFlags {
  uint32_t above = 0;
  uint32_t ties = 0;
};

/// Counts of the scores above the threshold and at it.
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

/// Counts a thread's flags.
__device__ inline Passed count_flags(const KeyFlags& flags) {
  return {.above = __popc(flags.above), .ties = __popc(flags.ties)};
}

/// Where a thread's selected scores go.
struct Placement {
  int32_t first;      // Position of the first one in the row's list.
  uint32_t selected;  // Bit t: score t is selected.
};

/// Places the tile's selected scores after those that `passed` counts, and adds the tile to
/// `passed`.
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
  // Clears the last ties, because the first ones are selected.
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
