// Stage 1 of vertical-slash, the inside: how a call is divided, and the step that computes the
// scores. estimate_vertical_slash() selects from them afterwards; tests look at them. Each backend
// brings kernels for the two passes over K and shares everything else.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/backend.h"
#include "core/host_device.h"
#include "core/pattern.h"
#include "core/workspace.h"
#include "cuda/arch/emulation.h"
#include "cuda/device/online_softmax.h"

namespace minference::cuda {

/// The largest number of query heads in a group, for all kernels.
inline constexpr int kMaxGroupHeads = 8;

/// Targets of one KV head that are estimated together.
struct ScoreGroup {
  int32_t batch;
  int32_t first_target;  // Counted from the wave's first.
  int32_t num_heads;
  int32_t heads[kMaxGroupHeads];  // Query heads.
};

/// Arguments of the kernels for one wave of targets, whose memory they share. Chunks of
/// `chunk_keys` keys, a multiple of 64; the last one is shorter.
struct ScoreArgs {
  Sequences sequences;
  ConstTokens q;
  KvRows k;
  int32_t seqlen_k;
  int32_t head_dim;
  int32_t heads_per_kv_head;
  int32_t last_q;
  int32_t chunk_keys;
  int32_t num_chunks;
  float scale_log2;
  device::QueryBits query_bits;

  const ScoreGroup* groups;
  float* row_max;     // [targets][chunks][64], log2 units.
  float* row_sum;     // [targets][chunks][64], of 2^(score - row_max).
  float* row_offset;  // [targets][64]: P = 2^(score - row_offset); kNoRow: P = 0.
  float* overlap;     // [targets][chunks][64]: a chunk's sums that the next chunk adds to its own.
  float* vertical;    // [targets][seqlen_k]
  float* slash;       // [targets][seqlen_k]

  /// Position of the first estimating row.
  MINF_HOST_DEVICE int32_t first_position() const { return seqlen_k - last_q; }

  /// Where the 64 values of a target's chunk begin in row_max, row_sum and overlap.
  MINF_HOST_DEVICE int64_t chunk_rows(int32_t target, int32_t chunk) const {
    return (int64_t{target} * num_chunks + chunk) * kBlock;
  }
};

/// Targets whose scores are in memory together.
struct ScoreWave {
  std::size_t first_target = 0;
  std::size_t num_targets = 0;
  std::size_t first_group = 0;
  std::size_t num_groups = 0;
};

/// A pass over K: grid (chunks, groups), a block for `num_heads` heads.
using LaunchScorePass = void (*)(const Shape& shape, const ScoreArgs& args, dim3 grid,
                                 int num_heads, cudaStream_t stream);

/// The two passes for a dtype and a padded head_dim, and how they want a call to be divided.
struct ScoreKernels {
  LaunchScorePass row_statistics;
  LaunchScorePass score_sums;
  std::size_t max_heads;  // Most heads of a block, up to kMaxGroupHeads.
  std::size_t key_step;   // Chunks are multiples of it; itself one of kBlock.
  std::size_t blocks;     // Into which a pass over a wave is divided.
};

/// Bounds on a division; the defaults are production's.
struct ScoreLimits {
  /// Score rows of one wave: 32 heads at 1M keys would take 256 MiB at once. A wave also stays in
  /// the 50 MiB of an H200's L2 from pass 2 until the selection.
  std::size_t wave_bytes = std::size_t{48} << 20;
  /// Bounds tables on the host, and the grid's y axis.
  std::size_t wave_targets = 8192;
  /// Blocks of a pass, if the kernels want more.
  std::size_t pass_blocks = 8192;
  /// Chunks of a row: each costs 768 bytes a head.
  std::size_t max_chunks = 512;
};

/// How a call is divided: heads of a KV head into groups, groups into waves, keys into chunks. It
/// depends on shapes and targets only, so that a result does not depend on the device.
struct ScoreDivision {
  ScoreDivision(const EstimateVerticalSlashArgs& args, const ScoreKernels& kernels,
                const ScoreLimits& limits = {});

  std::vector<ScoreGroup> groups;
  std::vector<ScoreWave> waves;
  std::size_t max_wave_targets = 0;
  int32_t max_group_heads = 0;
  int32_t chunk_keys = 0;
  int32_t num_chunks = 0;
};

/// Device memory of one wave after the other. vertical and slash: [targets][seqlen_k].
struct ScoreMemory {
  /// Only counts bytes if the allocator does.
  ScoreMemory(WorkspaceAllocator& memory, const ScoreDivision& division, int32_t seqlen_k);

  ScoreGroup* groups;
  float* vertical;
  float* slash;
  float* overlap;
  float* row_max;
  float* row_sum;
  float* row_offset;
};

/// Enqueues the copy of the groups to device memory: once, before the first wave.
void store_groups(const ScoreDivision& division, const ScoreMemory& memory, cudaStream_t stream);

/// Enqueues the column and diagonal sums of the wave's targets; every entry of their rows is
/// written. @throws Error{MINF_ERROR_LAUNCH_FAILED}
void launch_scores(const EstimateVerticalSlashArgs& args, const ScoreKernels& kernels,
                   const ScoreDivision& division, const ScoreWave& wave, const ScoreMemory& memory,
                   cudaStream_t stream);

/// The stage with the given kernels, and the size of its work memory.
std::size_t estimate_vertical_slash_bytes(const EstimateVerticalSlashArgs& args,
                                          const ScoreKernels& kernels);
void estimate_vertical_slash(const EstimateVerticalSlashArgs& args, const ScoreKernels& kernels,
                             Workspace workspace, cudaStream_t stream);

}  // namespace minference::cuda
