// Selection of the largest scores of rows: work memory and launches. See select_rows.h.
// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "core/check.h"
#include "core/workspace.h"
#include "cuda/arch/launch.h"
#include "cuda/check.h"
#include "cuda/common/select_rows.h"
#include "cuda/common/select_rows_kernels.h"
#include "cuda/common/table.h"

namespace minference::cuda {
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
