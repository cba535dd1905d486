// Random heads of every pattern with valid or spoilt index lists in emulated device memory, and the
// key sets that a device must see in them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "core/backend.h"
#include "core/pattern.h"
#include "core/runs.h"
#include "device_array.h"

namespace minference::test {

/// Sizes of the lists in the index tensors.
struct RandomListSizes {
  int32_t columns;
  int32_t runs;
  int32_t blocks;
};

class RandomHeads {
 public:
  /// Draws a pattern for each query head, and lists for all heads whatever their pattern.
  RandomHeads(const Shape& shape, const RandomListSizes& sizes, bool spoilt, uint64_t seed)
      : shape_(shape), sizes_(sizes), random_(seed) {
    for (int32_t head = 0; head < shape.num_heads_q; ++head) {
      patterns.push_back(random_pattern());
      patterns.back().list_head = head;
    }
    const int32_t heads = shape.batch * shape.num_heads_q;
    for (int32_t head = 0; head < heads; ++head) append_lists(spoilt);
    columns_.emplace_back(host_columns);
    runs_.emplace_back(host_runs);
    run_count_.emplace_back(host_run_count);
    blocks_.emplace_back(host_blocks);
  }

  std::vector<HeadKeys> patterns;  // [num_heads_q]

  IndexLists index() const {
    const int64_t row_list = sizes_.blocks;
    const int64_t block_list = row_list * shape_.lengths.row_blocks();
    return {.columns = lists(columns_[0].data(), sizes_.columns, sizes_.columns),
            .runs = lists(runs_[0].data(), sizes_.runs, sizes_.runs),
            .run_count = lists(run_count_[0].data(), 1, 1),
            .blocks = lists(blocks_[0].data(), sizes_.blocks, block_list),
            .block_row_stride = row_list};
  }

  /// The key sets that the device's lists give, [batch * num_heads_q]: the valid start of each
  /// list.
  std::vector<HeadKeys> expected() const {
    std::vector<HeadKeys> heads;
    const IndexLists index = this->index();
    for (int32_t i = 0; i < shape_.batch * shape_.num_heads_q; ++i) {
      const int32_t batch = i / shape_.num_heads_q, head = i % shape_.num_heads_q;
      HeadKeys& keys = heads.emplace_back(patterns[static_cast<std::size_t>(head)]);
      if (keys.form == Form::kRuns) {
        keys.columns = index.columns.at(batch, head);
        keys.runs = index.runs.at(batch, head);
        set_counts(keys, *index.run_count.at(batch, head));
      } else if (keys.form == Form::kBlocks && index.blocks.data != nullptr) {
        keys.blocks = index.blocks.at(batch, head);
        keys.block_stride = index.block_row_stride;
        keys.max_blocks = index.blocks.size;
      }
    }
    return heads;
  }

  std::vector<int32_t> host_columns, host_run_count, host_blocks;
  std::vector<Run> host_runs;

 private:
  template <typename T>
  HeadLists<const T> lists(T* data, int32_t size, int64_t stride) const {
    const auto bytes = static_cast<int64_t>(sizeof(T)) * stride;
    return {.data = data,
            .batch_stride_bytes = bytes * shape_.num_heads_q,
            .head_stride_bytes = bytes,
            .size = size};
  }

  int32_t below(int64_t limit) {
    return static_cast<int32_t>(random_() % static_cast<uint64_t>(std::max<int64_t>(limit, 1)));
  }

  HeadKeys random_pattern() {
    const int32_t seqlen_k = shape_.lengths.seqlen_k;
    const int32_t window = below(4) == 0 ? 0 : below(seqlen_k + 100);
    constexpr Form kForms[] = {Form::kShape, Form::kShape, Form::kRuns, Form::kBlocks,
                               Form::kShape};
    const int32_t kind = below(5);  // dense, a_shape, runs, blocks, tri_shape
    const int32_t sink = below(3) == 0 ? 0 : below(seqlen_k + 100);
    const int32_t last = below(shape_.lengths.seqlen_q + 100);
    return {.form = kForms[kind],
            .sink = sink,
            .window = window,
            .dense_rows = kind == 0   ? kAllRows
                          : kind == 4 ? last
                                      : 0};
  }

  /// Ascending entries from [0, limit): sometimes all of them, then -1 to the end.
  std::vector<int32_t> ascending(int32_t size, int32_t limit) {
    std::vector<int32_t> list;
    const int32_t max_gap = below(2) == 0 ? 2 : 2 * limit / std::max(size, 1) + 2;
    for (int64_t entry = below(max_gap); entry < limit && static_cast<int32_t>(list.size()) < size;
         entry += 1 + below(max_gap)) {
      list.push_back(static_cast<int32_t>(entry));
    }
    list.resize(static_cast<std::size_t>(size), -1);
    return list;
  }

  /// Overwrites some entries with arbitrary values, or with the entry before.
  void spoil(std::vector<int32_t>& list, int32_t limit) {
    const int32_t bad[] = {-1, INT32_MIN, INT32_MAX, limit, limit - 1, 0};
    for (int32_t i = below(3); i > 0 && !list.empty(); --i) {
      const auto entry = static_cast<std::size_t>(below(static_cast<int64_t>(list.size())));
      list[entry] = below(2) == 0 && entry > 0 ? list[entry - 1] : bad[below(6)];
    }
  }

  /// Does the same to runs, often behind the last one, and to their number.
  void spoil_runs(std::vector<Run>& runs, int32_t& count) {
    const int32_t seqlen_k = shape_.lengths.seqlen_k;
    const Run bad[] = {
        {-5, 59}, {0, 0},    {INT32_MAX - 63, INT32_MIN}, {seqlen_k, seqlen_k + 64}, {7, 70},
        {5, 69},  {64, 4096}};
    if (below(2) == 0) runs[static_cast<std::size_t>(below(sizes_.runs))] = bad[below(7)];
    if (below(2) == 0 && count < sizes_.runs)
      runs[static_cast<std::size_t>(count++)] = bad[below(7)];
    if (below(3) == 0) count = below(2) == 0 ? INT32_MAX : -1;
  }

  void append_lists(bool spoilt) {
    const Lengths& lengths = shape_.lengths;
    std::vector<int32_t> columns = ascending(sizes_.columns, lengths.seqlen_k);
    if (spoilt) spoil(columns, lengths.seqlen_k);
    host_columns.insert(host_columns.end(), columns.begin(), columns.end());

    const std::vector<int32_t> distances = ascending(sizes_.runs, lengths.seqlen_k);
    std::vector<Run> runs(static_cast<std::size_t>(sizes_.runs));
    int32_t count = plan_runs(distances.data(), sizes_.runs, runs.data());
    if (spoilt && sizes_.runs > 0) spoil_runs(runs, count);
    host_runs.insert(host_runs.end(), runs.begin(), runs.end());
    host_run_count.push_back(count);

    for (int32_t r = 0; r < lengths.row_blocks(); ++r) {
      std::vector<int32_t> blocks = ascending(sizes_.blocks, lengths.key_blocks());
      if (spoilt) spoil(blocks, lengths.key_blocks());
      host_blocks.insert(host_blocks.end(), blocks.begin(), blocks.end());
    }
  }

  void set_counts(HeadKeys& keys, int32_t run_count) const {
    for (int32_t previous = -1; keys.num_columns < sizes_.columns; ++keys.num_columns) {
      const int32_t column = keys.columns[keys.num_columns];
      if (column <= previous || column >= shape_.lengths.seqlen_k) break;
      previous = column;
    }
    for (int32_t hi = 0; keys.num_runs < std::min(run_count, sizes_.runs); ++keys.num_runs) {
      const Run run = keys.runs[keys.num_runs];
      if (run.lo < hi || run.lo >= shape_.lengths.seqlen_k || run.hi <= run.lo) break;
      if ((run.hi - run.lo) % kBlock != 0) break;
      hi = run.hi;
    }
  }

  const Shape shape_;
  const RandomListSizes sizes_;
  std::mt19937_64 random_;
  // One element each: made when the host's lists are complete.
  std::vector<DeviceArray<int32_t>> columns_, run_count_, blocks_;
  std::vector<DeviceArray<Run>> runs_;
};

}  // namespace minference::test
