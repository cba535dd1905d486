// A head's key set, which one block makes from its pattern and its untrusted lists
// (attention_launch.h), and the number of tiles that stage 3 computes for it.
// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "core/backend.h"
#include "cuda/arch/launch.h"
#include "cuda/arch/shared.h"
#include "cuda/common/attention_launch.h"
#include "cuda/common/stages.h"
#include "cuda/device/row_block_tiles.h"
#include "cuda/device/thread_group.h"

namespace minference::cuda {

/// A HeadKeys without lists.
struct HeadPattern {
  Form form;
  int32_t sink;
  int32_t window;
  int32_t dense_rows;
  int32_t list_head;  // Index in the index tensors; -1: the head's own.
};

/// Some heads of a call, as a kernel parameter: 3 KiB of patterns; parameters may take 4 KiB.
struct HeadChunk {
  static constexpr std::size_t kMaxPatterns = 160;

  HeadPattern patterns[kMaxPatterns];
  int32_t num_patterns;  // 1: one for all heads.
  int32_t first_head;
  int32_t num_heads;  // The chunk's grid has batch * num_heads blocks.
  Sequences sequences;
  IndexLists index;
};

/// Calls launch(chunk) for all query heads of the call, one chunk at a time.
template <typename Launch>
void for_each_head_chunk(const Shape& shape, std::span<const HeadKeys> patterns,
                         const IndexLists& index, const Launch& launch) {
  for (std::size_t first = 0; first < patterns.size(); first += HeadChunk::kMaxPatterns) {
    const auto part = patterns.subspan(first, patterns.size() - first < HeadChunk::kMaxPatterns
                                                  ? patterns.size() - first
                                                  : HeadChunk::kMaxPatterns);
    const auto num_patterns = static_cast<int32_t>(part.size());
    HeadChunk chunk{.patterns = {},
                    .num_patterns = num_patterns,
                    .first_head = static_cast<int32_t>(first),
                    .num_heads = patterns.size() == 1 ? shape.num_heads_q : num_patterns,
                    .sequences = shape.sequences(),
                    .index = index};
    for (std::size_t i = 0; i < part.size(); ++i) {
      const HeadKeys& keys = part[i];
      chunk.patterns[i] = {.form = keys.form,
                           .sink = keys.sink,
                           .window = keys.window,
                           .dense_rows = keys.dense_rows,
                           .list_head = patterns.size() == 1 ? -1 : keys.list_head};
    }
    launch(chunk);
  }
}

/// The head that a block of a chunk's grid serves.
struct HeadPlace {
  int32_t batch;
  int32_t head_in_chunk;
  int32_t head;

  __device__ explicit HeadPlace(const HeadChunk& chunk)
      : batch(static_cast<int32_t>(blockIdx.x) / chunk.num_heads),
        head_in_chunk(static_cast<int32_t>(blockIdx.x) % chunk.num_heads),
        head(chunk.first_head + head_in_chunk) {}
};

template <typename Group>
using LoadStorage = device::ScanStorage<Group, device::Min<int32_t>>;

/// The smallest i in [0, size) for which is_bad(i), else size.
template <typename Group, typename IsBad>
__device__ inline int32_t valid_start(LoadStorage<Group>& storage, int32_t size,
                                      const IsBad& is_bad) {
  for (int32_t begin = 0; begin < size; begin += Group::kThreads) {
    const bool exists = Group::thread() < size - begin;
    const int32_t i = begin + Group::thread();
    const int32_t bad = exists && is_bad(i) ? i : device::Min<int32_t>::identity();
    const int32_t first = device::exclusive_scan<Group>(storage, bad).total;
    if (first < size) return first;
  }
  return size;
}

/// The key set of a block's head, the same in all threads.
template <typename Group>
__device__ inline HeadKeys load_head_keys(LoadStorage<Group>& storage, const HeadChunk& chunk,
                                          const HeadPlace& place) {
  const HeadPattern pattern = chunk.patterns[chunk.num_patterns == 1 ? 0 : place.head_in_chunk];
  const int32_t list_head = pattern.list_head < 0 ? place.head : pattern.list_head;
  const int32_t seqlen_k = chunk.sequences.at(place.batch).lengths.seqlen_k;
  HeadKeys keys{.form = pattern.form,
                .sink = pattern.sink,
                .window = pattern.window,
                .dense_rows = pattern.dense_rows};
  if (pattern.form == Form::kRuns) {
    const int32_t* const columns = chunk.index.columns.at(place.batch, list_head);
    const auto bad_column = [&](int32_t i) {
      const int32_t column = columns[i];
      return column < 0 || column >= seqlen_k || (i > 0 && column <= columns[i - 1]);
    };
    keys.columns = columns;
    keys.num_columns = valid_start<Group>(storage, chunk.index.columns.size, bad_column);

    const Run* const runs = chunk.index.runs.at(place.batch, list_head);
    const auto bad_run = [&](int32_t i) {
      const Run run = runs[i];
      return run.lo < (i > 0 ? runs[i - 1].hi : 0) || run.lo < 0 || run.lo >= seqlen_k ||
             run.hi <= run.lo || (run.hi - run.lo) % kBlock != 0;
    };
    int32_t run_count = *chunk.index.run_count.at(place.batch, list_head);
    run_count = run_count < 0 ? 0 : run_count;
    run_count = run_count < chunk.index.runs.size ? run_count : chunk.index.runs.size;
    keys.runs = runs;
    keys.num_runs = valid_start<Group>(storage, run_count, bad_run);
  } else if (pattern.form == Form::kBlocks && chunk.index.blocks.data != nullptr) {
    keys.blocks = chunk.index.blocks.at(place.batch, list_head);
    keys.block_stride = chunk.index.block_row_stride;
    keys.max_blocks = chunk.index.blocks.size;
  }
  return keys;
}

// ---- Key sets in memory -------------------------------------------------------------------------

namespace {

/// One block per head, bound by the latency of reading its lists: 1024 threads read 4 KiB at a
/// time.
struct HeadKeysTraits {
  static constexpr int kThreads = 1024;
  using Group = device::BlockGroup<kThreads>;
  struct SharedStorage {
    LoadStorage<Group> load;
  };
};

/// Grid: batch * chunk.num_heads.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads)
    prepare_head_keys_kernel(const __grid_constant__ HeadChunk chunk, int32_t num_heads_q,
                             HeadKeys* heads) {
  auto& storage = arch::shared_storage<typename Traits::SharedStorage>();
  const HeadPlace place(chunk);
  const HeadKeys keys = load_head_keys<typename Traits::Group>(storage.load, chunk, place);
  if (threadIdx.x == 0) heads[int64_t{place.batch} * num_heads_q + place.head] = keys;
}

}  // namespace

void prepare_head_keys(const Shape& shape, std::span<const HeadKeys> patterns,
                       const IndexLists& index, HeadKeys* heads, cudaStream_t stream) {
  for_each_head_chunk(shape, patterns, index, [&](const HeadChunk& chunk) {
    arch::launch("prepare_head_keys", &prepare_head_keys_kernel<HeadKeysTraits>,
                 {dim3(static_cast<unsigned>(shape.batch * chunk.num_heads)),
                  dim3(HeadKeysTraits::kThreads), sizeof(HeadKeysTraits::SharedStorage)},
                 stream, chunk, shape.num_heads_q, heads);
  });
}

// ---- Tile counts --------------------------------------------------------------------------------
//
// Tiles are counted without walking them: one block per head goes over its row blocks.

namespace {

/// 1024 row blocks a step, 16 steps at 1M tokens. One block per head, on an SM of its own:
/// left to itself, ptxas makes room for two on sm_80 and spills.
struct CountTraits {
  static constexpr int kBlocksPerSm = 1;
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
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocksPerSm)
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
