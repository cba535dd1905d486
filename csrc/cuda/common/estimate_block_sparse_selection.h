// Selection for a tile of 64 row blocks, from scores that a stream brings, however they were
// multiplied: the part of stage 1 of block-sparse that all backends share.
//
// A Stream has, for all threads of the block together:
//     pass(num_blocks, consume)   calls consume(first_block, scores) for each group of 16 key
//     blocks any(condition)              whether the condition holds for any thread
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/common/estimate_block_sparse_rows.h"
#include "cuda/common/estimate_block_sparse_stream.h"
#include "cuda/device/thread_group.h"

namespace minference::cuda::block_sparse {

// ---- Selection digit by digit -------------------------------------------------------------------
//
// For lists of any length, in several passes over the keys: each pass makes a histogram of one
// digit of the scores' order keys, and a last pass writes the blocks in their order. Scores are
// computed again each time, with the same bits.
//
// By count there are 4 passes of 8 bits and one to write; by mass, whose bins are three times as
// large, 6 of 6 bits. A row block is settled as soon as a whole bin is selected; when all are, the
// remaining digits are skipped.

/// The bits of the key that a pass looks at, and those above them, which are known.
struct Digit {
  int shift;
  int bits;

  __device__ uint32_t known() const { return shift + bits == 32 ? 0 : ~0u << (shift + bits); }
  __device__ int of(uint32_t key) const {
    return static_cast<int>(key >> shift & ((1u << bits) - 1));
  }
};

__device__ inline void add_to_bin(CountBins& bins, int row, int bin, uint32_t, float) {
  atomicAdd(&bins.counts[row][bin], 1);
}
__device__ inline void add_to_bin(MassBins& bins, int row, int bin, uint32_t key, float max) {
  atomicAdd(&bins.counts[row][bin], 1);
  atomicAdd(&bins.masses[row][bin], static_cast<unsigned long long>(mass_of(key, max)));
}
__device__ inline device::Tally bin_of(const CountBins& bins, int row, int bin) {
  return {.count = bins.counts[row][bin]};
}
__device__ inline device::Tally bin_of(const MassBins& bins, int row, int bin) {
  return {.count = bins.counts[row][bin], .mass = bins.masses[row][bin]};
}
__device__ inline void clear_bin(CountBins& bins, int row, int bin) { bins.counts[row][bin] = 0; }
__device__ inline void clear_bin(MassBins& bins, int row, int bin) {
  bins.counts[row][bin] = 0;
  bins.masses[row][bin] = 0;
}

/// The search of a row block before the first digit. `wanted` is the mass to reach.
__device__ inline RadixRow start_row(const BlockRow& row, bool by_mass, uint64_t wanted) {
  RadixRow start{.search = device::start_search(row.room),
                 .threshold = {.key = 0, .ties = 0},  // Selects all.
                 .settled = row.candidates() == 0 || (!by_mass && row.candidates() <= row.room)};
  if (by_mass) {
    start.search.mass_left = wanted;
    if (wanted == 0) {
      start.threshold.key = ~0u;  // Selects none.
      start.settled = true;
    }
  }
  return start;
}

/// Finds the bin in which the search of a row block ends, and narrows the search to it. A warp
/// calls it once its histogram is complete.
template <typename Bins>
__device__ inline void settle_row(const Bins& bins, int tile_row, const Digit& digit,
                                  RadixRow& row) {
  constexpr bool kByMass = std::is_same_v<Bins, MassBins>;
  constexpr int kBinsPerLane = (1 << Bins::kDigitBits) / device::kWarpThreads;
  const device::RadixSearch search = row.search;
  const auto ends = [&](const device::Tally& tally) {
    return tally.count >= search.count_left || (kByMass && tally.mass >= search.mass_left);
  };
  // Lane 0 has the highest bins.
  const int first_bin = (1 << Bins::kDigitBits) - 1 - device::lane_index() * kBinsPerLane;
  device::Tally own;
  for (int i = 0; i < kBinsPerLane; ++i) {
    const device::Tally bin = bin_of(bins, tile_row, first_bin - i);
    own.count += bin.count;
    own.mass += bin.mass;
  }
  device::Tally with{.count = device::warp_inclusive_scan<device::Sum<int32_t>>(own.count)};
  if constexpr (kByMass) {
    with.mass = device::warp_inclusive_scan<device::Sum<uint64_t>>(own.mass);
  }
  const uint32_t ending = __ballot_sync(device::kFullWarp, ends(with));
  const int last_lane = __ffs(static_cast<int>(ending)) - 1;
  __syncwarp();  // All have read the search.
  if (ending == 0) {
    // All candidates together are less than the budget.
    if (device::lane_index() == 0) row.settled = true;
  } else if (device::lane_index() == last_lane) {
    device::Tally above{.count = with.count - own.count, .mass = with.mass - own.mass};
    int bin = first_bin;
    device::Tally in = bin_of(bins, tile_row, bin);
    while (!ends({.count = above.count + in.count, .mass = above.mass + in.mass})) {
      above.count += in.count;
      above.mass += in.mass;
      in = bin_of(bins, tile_row, --bin);
    }
    row.search = {.prefix = search.prefix | static_cast<uint32_t>(bin) << digit.shift,
                  .count_left = search.count_left - above.count,
                  .mass_left = search.mass_left - above.mass};
    const uint32_t prefix = row.search.prefix;
    if (kByMass ? in.count == 1 : in.count == row.search.count_left) {
      row.threshold = {.key = prefix == 0 ? 0 : prefix - 1, .ties = 0};  // The whole bin.
      row.settled = true;
    } else if (digit.shift == 0) {
      row.threshold = {.key = prefix, .ties = row.search.count_left};
      if (kByMass) {
        row.threshold.ties = ties_of(row.search.count_left, row.search.mass_left,
                                     in.mass / static_cast<uint64_t>(in.count));
      }
      row.settled = true;
    }
  }
}

/// One digit's pass for a lane: its scores go to the bins of its two row blocks.
template <typename Bins>
struct DigitPass {
  Bins& bins;
  Digit digit;
  const BlockRow (&rows)[2];
  const float (&max_score)[2];
  bool settled[2];
  uint32_t prefix[2];

  __device__ void add(int32_t first_block, const LaneScores& scores) const {
    const int lane = device::lane_index();
    const int32_t first = first_block + lane % 4 * kLaneKeys;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (settled[half]) continue;
      const uint32_t candidates = candidate_bits(first, rows[half]);
#pragma unroll
      for (int i = 0; i < kLaneKeys; ++i) {
        const uint32_t key = device::order_key(scores.of[half][i]);
        if ((candidates >> i & 1) == 0 || (key & digit.known()) != prefix[half]) continue;
        add_to_bin(bins, tile_row(half, lane / 4), digit.of(key), key, max_score[half]);
      }
    }
  }
};

/// Settles the searches of all row blocks of a tile, which were started in storage.rows.
/// `stream.pass` calls its argument with all scores; `stream.any` says whether a condition holds
/// for any thread. All threads call it.
template <typename Bins, typename Stream>
__device__ inline void settle_rows(SelectionStorage& storage, Bins& bins, int32_t num_blocks,
                                   const BlockRow (&rows)[2], const float (&max_score)[2],
                                   Stream& stream) {
  const int lane = device::lane_index();
  const int first_row = tile_row(0, 0);  // Of the warp's 16, which only this warp handles.
  DigitPass<Bins> pass{bins, {.shift = 32, .bits = 0}, rows, max_score, {}, {}};
  while (pass.digit.shift > 0) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const RadixRow& row = storage.rows[tile_row(half, lane / 4)];
      pass.settled[half] = row.settled;
      pass.prefix[half] = row.search.prefix;
    }
    if (!stream.any(!pass.settled[0] || !pass.settled[1])) break;  // The same for all warps.
    pass.digit.bits = min(Bins::kDigitBits, pass.digit.shift);
    pass.digit.shift -= pass.digit.bits;

    for (int row = first_row; row < first_row + kWarpRows; ++row) {
      for (int bin = lane; bin < 1 << Bins::kDigitBits; bin += device::kWarpThreads) {
        clear_bin(bins, row, bin);
      }
    }
    __syncwarp();  // The warp's bins are empty.
    stream.pass(num_blocks, [&](int32_t first_block, const LaneScores& scores) {
      pass.add(first_block, scores);
    });
    __syncwarp();  // The warp's bins are complete.
    for (int row = first_row; row < first_row + kWarpRows; ++row) {
      if (!storage.rows[row].settled) settle_row(bins, row, pass.digit, storage.rows[row]);
    }
    __syncwarp();  // Results are written, and bins are read.
  }
}

/// The last pass for a lane: what passes the thresholds goes to the lists of its two row blocks.
struct ListWriter {
  const BlockRow (&rows)[2];
  device::Threshold threshold[2];  // Its ties: how many are still to be selected.
  int32_t* list[2];                // Past block 0.
  int32_t count[2];

  /// The whole warp calls it.
  __device__ void add(int32_t first_block, const LaneScores& scores) {
    const int32_t first = first_block + device::lane_index() % 4 * kLaneKeys;
    uint32_t above[2], ties[2], counts = 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t candidates = candidate_bits(first, rows[half]);
      above[half] = ties[half] = 0;
#pragma unroll
      for (int i = 0; i < kLaneKeys; ++i) {
        const uint32_t key = device::order_key(scores.of[half][i]);
        above[half] |= static_cast<uint32_t>(key > threshold[half].key) << i;
        ties[half] |= static_cast<uint32_t>(key == threshold[half].key) << i;
      }
      above[half] &= candidates;
      ties[half] &= candidates;
      // 8 bits per number; a quad has 16 at most of each.
      counts |= static_cast<uint32_t>(__popc(above[half]) | __popc(ties[half]) << 8) << 16 * half;
    }
    if (!__any_sync(device::kFullWarp, counts != 0)) return;
    const QuadSum sum = quad_sum(counts);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      write(half, first, above[half], ties[half],
            {.before = sum.before >> 16 * half, .total = sum.total >> 16 * half});
    }
  }

 private:
  __device__ void write(int half, int32_t first, uint32_t above, uint32_t ties,
                        const QuadSum& sum) {
    const auto number_above = [](uint32_t word) { return static_cast<int32_t>(word & 0xff); };
    const auto number_ties = [](uint32_t word) { return static_cast<int32_t>(word >> 8 & 0xff); };
    const int32_t ties_before = min(threshold[half].ties, number_ties(sum.before));
    int32_t ties_left = threshold[half].ties - ties_before;
    int32_t place = count[half] + number_above(sum.before) + ties_before;
#pragma unroll
    for (int i = 0; i < kLaneKeys; ++i) {
      const bool tie = (ties >> i & 1) != 0 && ties_left > 0;
      if (!tie && (above >> i & 1) == 0) continue;
      ties_left -= tie ? 1 : 0;
      list[half][place++] = first + i;
    }
    const int32_t ties_taken = min(threshold[half].ties, number_ties(sum.total));
    count[half] += number_above(sum.total) + ties_taken;
    threshold[half].ties -= ties_taken;
  }
};

/// Writes what passes the thresholds to the lists, and completes them. All threads call it.
template <typename Stream>
__device__ inline void write_selected(const SelectionStorage& storage, const TileLists& lists,
                                      const BlockRow (&rows)[2], int32_t num_blocks,
                                      Stream& stream) {
  ListWriter writer{rows, {}, {}, {}};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = tile_row(half, device::lane_index() / 4);
    writer.threshold[half] = storage.rows[row].threshold;
    writer.list[half] = lists.of_row(row) + 1;
  }
  stream.pass(num_blocks, [&](int32_t first_block, const LaneScores& scores) {
    writer.add(first_block, scores);
  });
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    for (int quad = 0; quad < 8; ++quad) {
      finish_list(lists, tile_row(half, quad),
                  __shfl_sync(device::kFullWarp, writer.count[half], quad * 4));
    }
  }
}

// ---- Selection ----------------------------------------------------------------------------------

/// Writes lists that hold every block in sight, for which no scores are needed. By the whole warp.
__device__ inline void write_all(const TileLists& lists) {
  const int first_row = tile_row(0, 0);
  for (int row = first_row; row < first_row + kWarpRows; ++row) {
    const int32_t candidates = lists.row(row).candidates();
    for (int32_t i = device::lane_index(); i < candidates; i += device::kWarpThreads) {
      lists.of_row(row)[1 + i] = 1 + i;
    }
    finish_list(lists, row, candidates);
  }
}

/// Selects for a tile. `last`: the thread block's last row block, which sees most blocks.
template <typename Stream>
__device__ inline void select_rows(SelectionStorage& storage, const SelectBlocksParams& params,
                                   const TileLists& lists, const BlockRow& last, Stream& stream) {
  const int quad = device::lane_index() / 4;
  const bool by_mass = params.share < 1;
  const BlockRow rows[2] = {lists.row(tile_row(0, quad)), lists.row(tile_row(1, quad))};
  const int32_t first_key = device::lane_index() % 4 * kLaneKeys;
  RowMass mass[2];
  const auto add_mass = [&](int32_t first_block, const LaneScores& scores) {
    for (int half = 0; half < 2; ++half) {
      mass[half].add(scores.of[half], first_block + first_key, rows[half]);
    }
  };

  // 1. Short lists: one pass.
  if (lists.target.top_k <= params.max_streamed_top_k && last.diagonal <= kMaxStreamedBlocks) {
    CandidateStream candidates(storage.candidates, rows);
    stream.pass(by_mass ? last.allowed : last.diagonal,
                [&](int32_t first_block, const LaneScores& scores) {
                  if (by_mass) add_mass(first_block, scores);
                  candidates.add(first_block, scores);
                });
    for (int half = 0; by_mass && half < 2; ++half) mass[half].add_quad();
    return candidates.finish(lists, by_mass, mass, params.share);
  }

  // 2. Others: thresholds digit by digit, then the lists.
  if (by_mass) stream.pass(last.allowed, add_mass);
  for (int half = 0; half < 2; ++half) {
    if (by_mass) mass[half].add_quad();
    if (device::lane_index() % 4 == 0) {
      storage.rows[tile_row(half, quad)] =
          start_row(rows[half], by_mass, by_mass ? mass[half].wanted(params.share) : 0);
    }
  }
  __syncwarp();  // The warp's searches are initialised.
  const float max_score[2] = {mass[0].max, mass[1].max};
  if (by_mass) {
    settle_rows(storage, storage.mass_bins, last.diagonal, rows, max_score, stream);
  } else {
    settle_rows(storage, storage.count_bins, last.diagonal, rows, max_score, stream);
  }
  write_selected(storage, lists, rows, last.diagonal, stream);
}

}  // namespace minference::cuda::block_sparse
