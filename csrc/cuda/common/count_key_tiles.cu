// Tiles that stage 3 computes, per (batch, head), counted without walking them: one block per head
// goes over its row blocks.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include "cuda/arch/launch.h"
#include "cuda/arch/shared.h"
#include "cuda/common/load_head_keys.h"
#include "cuda/common/stages.h"
#include "cuda/device/row_block_tiles.h"
#include "cuda/device/scan.h"

namespace minference::cuda {
namespace {

/// 1024 row blocks a step, 16 steps at 1M tokens. One block per head, on an SM of its own.
struct CountTraits {
  static constexpr int kThreads = 1024;
  using Group = device::BlockGroup<kThreads>;
  struct SharedStorage {
    LoadStorage<Group> load;
    device::RowBlockStorage<Group> row_blocks;
    device::ScanStorage<Group, device::Sum<int64_t>> sum;
  };
};

/// Grid: batch * chunk.num_heads.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads)
    count_key_tiles_kernel(const __grid_constant__ HeadChunk chunk,
                           const __grid_constant__ HeadLists<int64_t> tiles) {
  using Group = typename Traits::Group;
  auto& storage = arch::shared_storage<typename Traits::SharedStorage>();
  const HeadPlace place(chunk);
  const HeadKeys head = load_head_keys<Group>(storage.load, chunk, place);
  int64_t count = 0;
  const Lengths lengths = chunk.sequences.at(place.batch).lengths;
  for (int32_t first = 0; first < lengths.row_blocks(); first += Traits::kThreads) {
    count += device::count_tiles_of_row_blocks<Group>(storage.row_blocks, head, lengths, first);
  }
  const int64_t total = device::exclusive_scan<Group>(storage.sum, count).total;
  if (threadIdx.x == 0) *tiles.at(place.batch, place.head) = total;
}

}  // namespace

void count_key_tiles(const CountTilesArgs& args, const Executor& executor) {
  for_each_head_chunk(args.shape, args.patterns, args.index, [&](const HeadChunk& chunk) {
    arch::launch("count_key_tiles", &count_key_tiles_kernel<CountTraits>,
                 {dim3(static_cast<unsigned>(args.shape.batch * chunk.num_heads)),
                  dim3(CountTraits::kThreads), sizeof(CountTraits::SharedStorage)},
                 static_cast<cudaStream_t>(executor.stream), chunk, args.tiles);
  });
}

}  // namespace minference::cuda
