// Stage 1 of vertical-slash: attention of the last rows (up to 64) to all keys, in two
// passes over K, summed over columns and diagonals; then the largest sums.
//
//     row_statistics    per chunk of keys: each row's maximum and sum     reads K
//     combine_rows      per row: log2 of the sum over all chunks
//     score_sums        column sums, diagonal sums                        reads K
//     add_overlaps      distances that two chunks contribute to
//     select_rows       indices
//
// Every sum has one order: no float atomics, the same bits every run.
//
// Source: MInference (arXiv:2407.02490), Algorithm 1.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <vector>

#include "core/host_device.h"
#include "cuda/arch/launch.h"
#include "cuda/arch/math.h"
#include "cuda/arch/shared.h"
#include "cuda/common/estimate_vertical_slash.h"
#include "cuda/common/select_rows.h"
#include "cuda/common/table.h"
#include "cuda/device/score_tile.h"

namespace minference::cuda {
namespace {

/// Shorter chunks would spend most of their time loading their queries, 64 rows a head.
constexpr std::size_t kMinChunkKeys = 256;

// ---- Combining chunks

constexpr int kCombineParts = 16;

struct CombineStorage {
  float max[kCombineParts][kBlock];
  double sum[kCombineParts][kBlock];
};

/// One block per target, kCombineParts threads per row.
__global__ void __launch_bounds__(kCombineParts* kBlock)
    combine_rows_kernel(const __grid_constant__ ScoreArgs args) {
  auto& storage = arch::shared_storage<CombineStorage>();
  const auto target = static_cast<int32_t>(blockIdx.x);
  const int row = static_cast<int>(threadIdx.x) % kBlock;
  const int part = static_cast<int>(threadIdx.x) / kBlock;
  const int64_t first = args.chunk_rows(target, 0) + row;

  float max = -device::kNoRow;
  for (int32_t chunk = part; chunk < args.num_chunks; chunk += kCombineParts) {
    max = fmaxf(max, args.row_max[first + int64_t{chunk} * kBlock]);
  }
  storage.max[part][row] = max;
  __syncthreads();  // Every part's maximum is written.
  for (int i = 0; i < kCombineParts; ++i) max = fmaxf(max, storage.max[i][row]);

  double sum = 0;
  for (int32_t chunk = part; chunk < args.num_chunks; chunk += kCombineParts) {
    const int64_t i = first + int64_t{chunk} * kBlock;
    sum += args.row_sum[i] * arch::exp2_approx(args.row_max[i] - max);
  }
  storage.sum[part][row] = sum;
  __syncthreads();  // Every part's sum is written.
  if (part != 0) return;
  for (int i = 1; i < kCombineParts; ++i) sum += storage.sum[i][row];
  const float log_sum = max + log2f(static_cast<float>(sum));
  const bool counts = row < args.last_q && fabsf(log_sum) < device::kNoRow;  // NaN and inf do not.
  args.row_offset[int64_t{target} * kBlock + row] = counts ? log_sum : device::kNoRow;
}

/// A block of 64 threads per (chunk but the last, target).
__global__ void __launch_bounds__(kBlock)
    add_overlaps_kernel(const __grid_constant__ ScoreArgs args) {
  const auto chunk = static_cast<int32_t>(blockIdx.x);
  const auto target = static_cast<int32_t>(blockIdx.y);
  const auto i = static_cast<int32_t>(threadIdx.x);
  const int32_t distance = args.first_position() - (chunk + 1) * args.chunk_keys + i;
  if (distance < 0 || distance >= args.seqlen_k) return;
  args.slash[int64_t{target} * args.seqlen_k + distance] +=
      args.overlap[args.chunk_rows(target, chunk) + i];
}

// ---- Without rows

/// Index lists by value, in the parameters of a launch: there is no work memory to put them in.
struct FirstIndices {
  struct List {
    int32_t* index;
    int32_t kept;
    int32_t size;
  };
  static constexpr std::size_t kMaxLists = kTableChunkBytes / sizeof(List);
  static_assert(kMaxLists % 2 == 0);
  List lists[kMaxLists];
};

constexpr unsigned kFirstThreads = 256;

/// A block per list: entries 0, 1, ... kept - 1, then -1.
__global__ void __launch_bounds__(kFirstThreads)
    write_first_indices_kernel(const __grid_constant__ FirstIndices first) {
  const FirstIndices::List list = first.lists[blockIdx.x];
  for (auto i = static_cast<int32_t>(threadIdx.x); i < list.size;
       i += static_cast<int32_t>(kFirstThreads)) {
    list.index[i] = i < list.kept ? i : -1;
  }
}

/// All scores are 0: what is forced comes first, ties go to the smaller index, and no mass is
/// missing.
void launch_first_indices(const EstimateVerticalSlashArgs& args, cudaStream_t stream) {
  FirstIndices first{};
  std::size_t count = 0;
  const auto flush = [&] {
    arch::launch("write_first_indices", &write_first_indices_kernel,
                 {dim3(static_cast<unsigned>(count)), dim3(kFirstThreads)}, stream, first);
    count = 0;
  };
  for (const VerticalSlashTarget& target : args.targets) {
    first.lists[count++] = {.index = target.vertical_index,
                            .kept = args.vertical_p < 1 ? args.sink : target.vertical_size,
                            .size = target.vertical_size};
    first.lists[count++] = {.index = target.slash_index,
                            .kept = args.slash_p < 1 ? args.local : target.slash_size,
                            .size = target.slash_size};
    if (count == FirstIndices::kMaxLists) flush();
  }
  flush();
}

// ---- Division

/// Targets from `first` on that read the same keys.
std::size_t count_alike(const EstimateVerticalSlashArgs& args, std::size_t first) {
  std::size_t end = first + 1;
  while (end < args.targets.size() &&
         share_keys(args.shape, args.targets[first], args.targets[end])) {
    ++end;
  }
  return end - first;
}

}  // namespace

ScoreDivision::ScoreDivision(const EstimateVerticalSlashArgs& args, const ScoreKernels& kernels,
                             const ScoreLimits& limits) {
  const auto seqlen_k = static_cast<std::size_t>(args.shape.lengths.seqlen_k);
  const std::size_t target_bytes = 2 * sizeof(float) * seqlen_k;
  const std::size_t wave_targets = std::min(limits.wave_targets, limits.wave_bytes / target_bytes);

  for (std::size_t first = 0; first < args.targets.size();) {
    // As few groups as possible, and balanced: 12 heads are 6 + 6, not 8 + 4.
    const std::size_t alike = count_alike(args, first);
    const std::size_t parts = ceil_div(alike, kernels.max_heads);
    for (std::size_t part = 0; part < parts; ++part) {
      const std::size_t begin = first + part * alike / parts;
      const std::size_t count = first + (part + 1) * alike / parts - begin;
      if (waves.empty() || waves.back().num_targets + count > wave_targets) {
        waves.push_back({.first_target = begin, .first_group = groups.size()});
      }
      ScoreWave& wave = waves.back();
      ScoreGroup group{.batch = args.targets[begin].batch,
                       .first_target = static_cast<int32_t>(wave.num_targets),
                       .num_heads = static_cast<int32_t>(count),
                       .heads = {}};
      for (std::size_t i = 0; i < count; ++i) group.heads[i] = args.targets[begin + i].head;
      groups.push_back(group);
      wave.num_targets += count;
      ++wave.num_groups;
      max_group_heads = std::max(max_group_heads, group.num_heads);
    }
    first += alike;
  }

  std::size_t max_wave_groups = 1;
  for (const ScoreWave& wave : waves) {
    max_wave_targets = std::max(max_wave_targets, wave.num_targets);
    max_wave_groups = std::max(max_wave_groups, wave.num_groups);
  }
  const std::size_t blocks = std::min(limits.pass_blocks, kernels.blocks);
  const std::size_t chunks = std::min(limits.max_chunks, ceil_div(blocks, max_wave_groups));
  const std::size_t keys = std::max(kMinChunkKeys, ceil_div(seqlen_k, chunks));
  chunk_keys = static_cast<int32_t>(ceil_div(keys, kernels.key_step) * kernels.key_step);
  num_chunks = static_cast<int32_t>(ceil_div(seqlen_k, static_cast<std::size_t>(chunk_keys)));
}

ScoreMemory::ScoreMemory(WorkspaceAllocator& memory, const ScoreDivision& division,
                         int32_t seqlen_k)
    : groups(memory.take<ScoreGroup>(division.groups.size()).data()) {
  const std::size_t targets = division.max_wave_targets;
  const std::size_t keys = targets * static_cast<std::size_t>(seqlen_k);
  const std::size_t rows = targets * static_cast<std::size_t>(division.num_chunks) * kBlock;
  vertical = memory.take<float>(keys).data();
  slash = memory.take<float>(keys).data();
  overlap = memory.take<float>(rows).data();
  row_max = memory.take<float>(rows).data();
  row_sum = memory.take<float>(rows).data();
  row_offset = memory.take<float>(targets * kBlock).data();
}

void store_groups(const ScoreDivision& division, const ScoreMemory& memory, cudaStream_t stream) {
  store_table(division.groups.data(), division.groups.size(), memory.groups, stream);
}

void launch_scores(const EstimateVerticalSlashArgs& args, const ScoreKernels& kernels,
                   const ScoreDivision& division, const ScoreWave& wave, const ScoreMemory& memory,
                   cudaStream_t stream) {
  const device::QueryScale scale(args.softmax_scale);
  const ScoreArgs scores{.sequences = args.shape.sequences(),
                         .q = args.q,
                         .k = args.k,
                         .seqlen_k = args.shape.lengths.seqlen_k,
                         .head_dim = args.shape.head_dim,
                         .heads_per_kv_head = args.shape.group_size(),
                         .last_q = args.last_q,
                         .chunk_keys = division.chunk_keys,
                         .num_chunks = division.num_chunks,
                         .scale_log2 = scale.log2,
                         .query_bits = scale.bits,
                         .groups = memory.groups + wave.first_group,
                         .row_max = memory.row_max,
                         .row_sum = memory.row_sum,
                         .row_offset = memory.row_offset,
                         .overlap = memory.overlap,
                         .vertical = memory.vertical,
                         .slash = memory.slash};
  const auto chunks = static_cast<unsigned>(division.num_chunks);
  const auto targets = static_cast<unsigned>(wave.num_targets);
  const dim3 grid(chunks, static_cast<unsigned>(wave.num_groups));

  kernels.row_statistics(args.shape, scores, grid, division.max_group_heads, stream);
  arch::launch("combine_rows", &combine_rows_kernel,
               {dim3(targets), dim3(kCombineParts * kBlock), sizeof(CombineStorage)}, stream,
               scores);
  kernels.score_sums(args.shape, scores, grid, division.max_group_heads, stream);
  arch::launch("add_overlaps", &add_overlaps_kernel, {dim3(chunks - 1, targets), dim3(kBlock)},
               stream, scores);
}

namespace {

bool by_mass(const EstimateVerticalSlashArgs& args) {
  return args.vertical_p < 1 || args.slash_p < 1;
}

/// Work memory of the whole stage. The selection's is apart from the scores it reads.
struct Memory {
  Memory(WorkspaceAllocator& memory, const EstimateVerticalSlashArgs& args,
         const ScoreDivision& division)
      : scores(memory, division, args.shape.lengths.seqlen_k),
        selection(memory.take<std::byte>(select_rows_bytes(
            2 * division.max_wave_targets, args.shape.lengths.seqlen_k, by_mass(args)))) {}

  ScoreMemory scores;
  Workspace selection;
};

/// Two rows per target of the wave: columns and distances.
std::vector<SelectRow> selection_of(const EstimateVerticalSlashArgs& args, const ScoreWave& wave,
                                    const ScoreMemory& memory) {
  std::vector<SelectRow> rows;
  rows.reserve(2 * wave.num_targets);
  const auto seqlen_k = static_cast<std::size_t>(args.shape.lengths.seqlen_k);
  for (std::size_t i = 0; i < wave.num_targets; ++i) {
    const VerticalSlashTarget& target = args.targets[wave.first_target + i];
    rows.push_back({.scores = memory.vertical + i * seqlen_k,
                    .index = target.vertical_index,
                    .num_forced = args.sink,
                    .size = target.vertical_size,
                    .share = args.vertical_p});
    rows.push_back({.scores = memory.slash + i * seqlen_k,
                    .index = target.slash_index,
                    .num_forced = args.local,
                    .size = target.slash_size,
                    .share = args.slash_p});
  }
  return rows;
}

}  // namespace

std::size_t estimate_vertical_slash_bytes(const EstimateVerticalSlashArgs& args,
                                          const ScoreKernels& kernels) {
  if (args.last_q == 0) return 0;
  WorkspaceAllocator memory;
  Memory(memory, args, ScoreDivision(args, kernels));
  return memory.bytes();
}

void estimate_vertical_slash(const EstimateVerticalSlashArgs& args, const ScoreKernels& kernels,
                             Workspace workspace, cudaStream_t stream) {
  if (args.last_q == 0) return launch_first_indices(args, stream);
  const ScoreDivision division(args, kernels);
  WorkspaceAllocator allocator(workspace);
  const Memory memory(allocator, args, division);
  store_groups(division, memory.scores, stream);
  for (const ScoreWave& wave : division.waves) {
    launch_scores(args, kernels, division, wave, memory.scores, stream);
    select_rows(selection_of(args, wave, memory.scores), args.shape.lengths.seqlen_k, by_mass(args),
                memory.selection, stream);
  }
}

}  // namespace minference::cuda
