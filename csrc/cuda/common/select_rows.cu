// Selection of the largest scores of rows: see select_rows.h. For a short row, one block finds the
// threshold and writes the indices. Long rows are cut into segments, one block each, and every step
// over all scores is a kernel:
//     tally digit 0 -> tally digit 1 -> tally digit 2 -> count selected -> write indices.
// Each kernel first settles the digit that the previous kernel counted. All blocks of a row do so
// and get the same result: that costs them 8 KiB from L2 (24 KiB with masses) beside 64 KiB of
// scores, and saves launches. Forced entries are in no histogram; the search is for the rest.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <limits>

#include "core/check.h"
#include "core/workspace.h"
#include "cuda/arch/launch.h"
#include "cuda/arch/shared.h"
#include "cuda/check.h"
#include "cuda/common/select_rows.h"
#include "cuda/common/table.h"
#include "cuda/device/radix_search.h"

namespace minference::cuda {

/// 3 blocks on an SM: at most 40 registers, and 25 KiB of shared memory with masses (9 without).
template <typename Histogram_>
struct SelectTraits {
  using Histogram = Histogram_;
  static constexpr int kThreads = 512;
  static constexpr int kBlocksPerSm = 3;
  using Group = device::BlockGroup<kThreads>;
  /// Scores of a segment: as many as one compaction step places.
  static constexpr int32_t kSegment = device::kCompactionTile<Group>;

  struct SharedStorage {
    Histogram histogram;
    device::RadixStorage<Group> radix;
    device::ScanStorage<Group, device::Sum<uint64_t>> scan;
  };
};

/// The state of a long row between kernels. Zeroed before the first.
template <typename Histogram>
struct RowSearch {
  Histogram histograms[device::kRadixDigits];
  unsigned long long forced_mass;
  device::RadixSearch before[device::kRadixDigits];  // Before digit d is settled.
  device::Threshold threshold;
};

template <typename Traits>
struct SelectParams {
  const SelectRow* rows;
  RowSearch<typename Traits::Histogram>* searches;  // [num_rows]
  device::Passed* segments;                         // [num_rows, num_segments]: the counts of each.
  int32_t num_scores;
  int32_t num_segments;
};

/// Scores [begin, end) of a row; those from `first` on are not forced.
struct Segment {
  int32_t begin;
  int32_t first;
  int32_t end;
};

__device__ inline Segment make_segment(const SelectRow& row, int32_t begin, int32_t end) {
  const int32_t first = begin > row.num_forced ? begin : row.num_forced;
  return {.begin = begin, .first = first < end ? first : end, .end = end};
}

/// The row and segment that a block of a long row's grid serves.
template <typename Traits>
struct BlockPlace {
  int32_t row_index;
  int32_t segment_index;
  SelectRow row;
  Segment segment;

  __device__ explicit BlockPlace(const SelectParams<Traits>& params)
      : row_index(static_cast<int32_t>(blockIdx.x) / params.num_segments),
        segment_index(static_cast<int32_t>(blockIdx.x) % params.num_segments),
        row(params.rows[row_index]) {
    const int32_t begin = segment_index * Traits::kSegment;
    const int32_t left = params.num_scores - begin;
    segment = make_segment(row, begin, begin + (left < Traits::kSegment ? left : Traits::kSegment));
  }
};

/// Adds a segment's scores that are not forced to the histogram.
template <typename Traits>
__device__ inline void tally_segment(typename Traits::Histogram& histogram, const float* scores,
                                     const Segment& segment, int digit, uint32_t prefix) {
  constexpr int kBatch = 8;  // Loads in flight per thread.
  for (int32_t i = segment.first + Traits::Group::thread(); i < segment.end;
       i += kBatch * Traits::kThreads) {
    float score[kBatch];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const bool exists = b * Traits::kThreads < segment.end - i;
      score[b] = exists ? scores[i + b * Traits::kThreads] : 0;
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      if (b * Traits::kThreads >= segment.end - i) break;
      device::tally(histogram, digit, prefix, device::order_key(score[b]));
    }
  }
}

/// Sum over the block of the segment's forced scores.
template <typename Traits>
__device__ inline uint64_t forced_mass(typename Traits::SharedStorage& storage, const float* scores,
                                       const Segment& segment) {
  uint64_t mass = 0;
  for (int32_t i = segment.begin + Traits::Group::thread(); i < segment.first;
       i += Traits::kThreads) {
    mass += device::mass_of(scores[i]);
  }
  return device::exclusive_scan<typename Traits::Group>(storage.scan, mass).total;
}

/// The search for a row's threshold, given the complete histogram of its first digit.
template <typename Traits>
__device__ inline device::RadixSearch start_row_search(
    typename Traits::SharedStorage& storage, const SelectRow& row,
    const typename Traits::Histogram& first_digit, uint64_t forced) {
  const int32_t count = row.size - row.num_forced;
  if constexpr (Traits::Histogram::kByMass) {
    if (row.share < 1) {
      const uint64_t total = forced + device::total_mass(storage.radix, first_digit);
      const double budget = ceil(row.share * static_cast<double>(total));
      constexpr double kLimit = 18446744073709551616.0;  // 2^64
      const uint64_t units = budget < kLimit ? static_cast<uint64_t>(budget) : ~uint64_t{0};
      return device::start_search(count, units > forced ? units - forced : 0);
    }
  }
  return device::start_search(count);
}

template <typename Traits>
struct RowKeys {
  const float* scores;
  __device__ uint32_t operator()(int32_t i) const { return device::order_key(scores[i]); }
};

/// Writes the segment's part of the row's list: forced entries, then the selected ones of the rest.
template <typename Traits>
__device__ inline void write_segment(typename Traits::SharedStorage& storage, const SelectRow& row,
                                     const Segment& segment, const device::Threshold& threshold,
                                     device::Passed& passed) {
  using Group = typename Traits::Group;
  for (int32_t i = segment.begin + Group::thread(); i < segment.first; i += Traits::kThreads) {
    row.index[i] = i;
  }
  const device::KeyFlags flags =
      device::flag_keys<Group>(RowKeys<Traits>{row.scores}, segment.first, segment.end, threshold);
  const device::Placement placement =
      device::place_selected<Group>(storage.scan, flags, threshold, passed);
  const int32_t room = row.size - row.num_forced;
  int32_t* const index = row.index + row.num_forced;
  device::for_each_selected<Group>(placement, segment.first, [&](int32_t position, int32_t i) {
    // Always true unless masses overflow: see settle_digit.
    if (position < room) index[position] = i;
  });
}

/// Writes -1 to the end of the list; `passed` counts the whole row.
template <typename Traits>
__device__ inline void fill_list(const SelectRow& row, const device::Threshold& threshold,
                                 const device::Passed& passed) {
  const int32_t ties = passed.ties < threshold.ties ? passed.ties : threshold.ties;
  for (int32_t i = row.num_forced + passed.above + ties + Traits::Group::thread(); i < row.size;
       i += Traits::kThreads) {
    row.index[i] = -1;
  }
}

/// Short rows, of at most kSegment scores. Grid: one block per row.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocksPerSm)
    select_short_rows_kernel(const SelectRow* rows, int32_t num_scores) {
  using Group = typename Traits::Group;
  auto& storage = arch::shared_storage<typename Traits::SharedStorage>();
  const SelectRow row = rows[blockIdx.x];
  const Segment segment = make_segment(row, /*begin=*/0, num_scores);

  uint64_t forced = 0;
  if constexpr (Traits::Histogram::kByMass) {
    forced = forced_mass<Traits>(storage, row.scores, segment);
  }
  device::RadixSearch search{};
#pragma unroll 1
  for (int digit = 0; digit < device::kRadixDigits; ++digit) {
    device::clear<Group>(storage.histogram);
    Group::sync();  // The histogram is zero.
    tally_segment<Traits>(storage.histogram, row.scores, segment, digit, search.prefix);
    Group::sync();  // It is complete.
    if (digit == 0) search = start_row_search<Traits>(storage, row, storage.histogram, forced);
    search = device::settle_digit<Group>(storage.radix, storage.histogram, digit, search);
  }
  const device::Threshold threshold = device::threshold_of<typename Traits::Histogram>(search);
  device::Passed passed;
  write_segment<Traits>(storage, row, segment, threshold, passed);
  fill_list<Traits>(row, threshold, passed);
}

/// The search once the digits below `digit` are settled, from what the previous kernel stored. The
/// first segment's block stores it for the next kernel.
template <typename Traits>
__device__ inline device::RadixSearch resume_search(const SelectParams<Traits>& params,
                                                    const BlockPlace<Traits>& place,
                                                    typename Traits::SharedStorage& storage,
                                                    int digit) {
  if (digit == 0) return {};
  auto& row_search = params.searches[place.row_index];
  const auto& histogram = row_search.histograms[digit - 1];
  const device::RadixSearch before =
      digit == 1 ? start_row_search<Traits>(storage, place.row, histogram, row_search.forced_mass)
                 : row_search.before[digit - 1];
  const device::RadixSearch search =
      device::settle_digit<typename Traits::Group>(storage.radix, histogram, digit - 1, before);
  if (place.segment_index == 0 && threadIdx.x == 0 && digit < device::kRadixDigits) {
    row_search.before[digit] = search;
  }
  return search;
}

/// Settles digit - 1 and makes the histogram of `digit`. Grid: num_rows * num_segments.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocksPerSm)
    tally_digit_kernel(const __grid_constant__ SelectParams<Traits> params, int digit) {
  using Group = typename Traits::Group;
  auto& storage = arch::shared_storage<typename Traits::SharedStorage>();
  const BlockPlace<Traits> place(params);
  device::clear<Group>(storage.histogram);
  const device::RadixSearch search = resume_search<Traits>(params, place, storage, digit);
  Group::sync();  // The histogram is zero.
  tally_segment<Traits>(storage.histogram, place.row.scores, place.segment, digit, search.prefix);
  Group::sync();  // It is complete.
  auto& row_search = params.searches[place.row_index];
  device::add_histogram<Group>(storage.histogram, row_search.histograms[digit], digit);
  if constexpr (Traits::Histogram::kByMass) {
    if (digit > 0 || place.segment.begin == place.segment.first) return;
    const uint64_t mass = forced_mass<Traits>(storage, place.row.scores, place.segment);
    if (Group::thread() == 0) {
      atomicAdd(&row_search.forced_mass, static_cast<unsigned long long>(mass));
    }
  }
}

/// Settles the last digit and counts the selected scores of each segment. Same grid.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocksPerSm)
    count_selected_kernel(const __grid_constant__ SelectParams<Traits> params) {
  using Group = typename Traits::Group;
  auto& storage = arch::shared_storage<typename Traits::SharedStorage>();
  const BlockPlace<Traits> place(params);
  const device::Threshold threshold = device::threshold_of<typename Traits::Histogram>(
      resume_search<Traits>(params, place, storage, device::kRadixDigits));
  const device::KeyFlags flags = device::flag_keys<Group>(
      RowKeys<Traits>{place.row.scores}, place.segment.first, place.segment.end, threshold);
  const uint64_t total =
      device::exclusive_scan<Group>(storage.scan, device::count_flags(flags).packed()).total;
  if (Group::thread() == 0) {
    params.segments[blockIdx.x] = device::Passed::unpacked(total);
    if (place.segment_index == 0) params.searches[place.row_index].threshold = threshold;
  }
}

/// Writes each segment's part of its row's list; the last segment's block fills the end. Same grid.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocksPerSm)
    write_selected_kernel(const __grid_constant__ SelectParams<Traits> params) {
  using Group = typename Traits::Group;
  auto& storage = arch::shared_storage<typename Traits::SharedStorage>();
  const BlockPlace<Traits> place(params);
  const device::Threshold threshold = params.searches[place.row_index].threshold;
  const device::Passed* const segments =
      params.segments + int64_t{place.row_index} * params.num_segments;
  uint64_t before = 0;
  for (int32_t s = Group::thread(); s < place.segment_index; s += Traits::kThreads) {
    before += segments[s].packed();
  }
  device::Passed passed =
      device::Passed::unpacked(device::exclusive_scan<Group>(storage.scan, before).total);
  write_segment<Traits>(storage, place.row, place.segment, threshold, passed);
  if (place.segment_index == params.num_segments - 1) {
    fill_list<Traits>(place.row, threshold, passed);
  }
}

// ---- Host ---------------------------------------------------------------------------------------

namespace {

template <typename Traits>
class RowSelector {
 public:
  RowSelector(std::size_t num_rows, int32_t num_scores)
      : num_rows_(num_rows),
        num_scores_(num_scores),
        num_segments_((num_scores - 1) / Traits::kSegment + 1) {}

  std::size_t bytes() const {
    WorkspaceAllocator allocator;
    take(allocator);
    return allocator.bytes();
  }

  void run(std::span<const SelectRow> rows, Workspace workspace, cudaStream_t stream) const {
    WorkspaceAllocator allocator(workspace);
    const Memory memory = take(allocator);
    store_table(rows.data(), rows.size(), memory.rows, stream);
    if (num_segments_ == 1) {
      arch::launch("select_short_rows", &select_short_rows_kernel<Traits>,
                   shape(static_cast<int64_t>(num_rows_)), stream, memory.rows, num_scores_);
    } else {
      select_long_rows(memory, stream);
    }
  }

 private:
  using Search = RowSearch<typename Traits::Histogram>;

  struct Memory {
    SelectRow* rows = nullptr;
    Search* searches = nullptr;
    device::Passed* segments = nullptr;
  };

  Memory take(WorkspaceAllocator& allocator) const {
    Memory memory;
    memory.rows = allocator.take<SelectRow>(num_rows_).data();
    if (num_segments_ > 1) {
      memory.searches = allocator.take<Search>(num_rows_).data();
      memory.segments =
          allocator.take<device::Passed>(num_rows_ * static_cast<std::size_t>(num_segments_))
              .data();
    }
    return memory;
  }

  static arch::LaunchShape shape(int64_t blocks) {
    MINF_ASSERT(blocks <= std::numeric_limits<int32_t>::max());
    return {dim3(static_cast<unsigned>(blocks)), dim3(Traits::kThreads),
            sizeof(typename Traits::SharedStorage)};
  }

  void select_long_rows(const Memory& memory, cudaStream_t stream) const {
    MINF_CUDA(cudaMemsetAsync(memory.searches, 0, num_rows_ * sizeof(Search), stream));
    const SelectParams<Traits> params{.rows = memory.rows,
                                      .searches = memory.searches,
                                      .segments = memory.segments,
                                      .num_scores = num_scores_,
                                      .num_segments = num_segments_};
    const arch::LaunchShape grid = shape(static_cast<int64_t>(num_rows_) * num_segments_);
    for (int digit = 0; digit < device::kRadixDigits; ++digit) {
      arch::launch("tally_digit", &tally_digit_kernel<Traits>, grid, stream, params, digit);
    }
    arch::launch("count_selected", &count_selected_kernel<Traits>, grid, stream, params);
    arch::launch("write_selected", &write_selected_kernel<Traits>, grid, stream, params);
  }

  const std::size_t num_rows_;
  const int32_t num_scores_;
  const int32_t num_segments_;
};

using BySize = RowSelector<SelectTraits<device::CountHistogram>>;
using ByMass = RowSelector<SelectTraits<device::MassHistogram>>;

}  // namespace

std::size_t select_rows_bytes(std::size_t num_rows, int32_t num_scores, bool by_mass) {
  if (num_rows == 0 || num_scores == 0) return 0;
  return by_mass ? ByMass(num_rows, num_scores).bytes() : BySize(num_rows, num_scores).bytes();
}

void select_rows(std::span<const SelectRow> rows, int32_t num_scores, bool by_mass,
                 Workspace workspace, cudaStream_t stream) {
  if (rows.empty() || num_scores == 0) return;
  if (by_mass) {
    ByMass(rows.size(), num_scores).run(rows, workspace, stream);
  } else {
    BySize(rows.size(), num_scores).run(rows, workspace, stream);
  }
}

}  // namespace minference::cuda
