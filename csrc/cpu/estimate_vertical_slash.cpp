// Stage 1 of vertical-slash on the CPU: attention of the last rows (up to 64) to all keys, in two
// passes over K, summed over columns and diagonals; then the largest sums.
//
// Keys are cut into chunks. Pass 1: per chunk, each row's maximum and sum of exponentials. Pass 2:
// the probabilities, of which only the sums are kept. A chunk's columns are its own; its nearest 63
// distances are also the next chunk's farthest, so they are kept apart and added afterwards. Query
// heads of a KV group are estimated together, so K is read twice in all. Every sum has a fixed
// order, so results do not depend on the number of threads.
//
// Source: MInference (arXiv:2407.02490), Algorithm 1.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <new>
#include <numeric>

#include "core/workspace.h"
#include "cpu/isa/kernels.h"
#include "cpu/stages.h"
#include "cpu/top_k.h"

namespace minference::cpu {
namespace {

/// Query heads of one KV group estimated together: 256 rows make a K tile from DRAM compute-bound.
constexpr int kGroupHeads = 4;

/// Keys of one task: enough to make its set-up (packing up to 256 rows) negligible, few enough to
/// keep all threads busy.
constexpr int32_t kChunkKeys = 4096;

/// The approximate size of the scores of one wave of groups: those of 32 heads at 128K keys would
/// take 32 MB at once.
constexpr int64_t kWaveBytes = int64_t{4} << 20;

/// Distances of a chunk that also belong to the next one.
constexpr int32_t kOverlap = kBlock - 1;

/// Neighbouring targets that read one KV head.
struct Group {
  int32_t first_target;
  int32_t num_targets;
};

/// Work memory of one thread.
struct ThreadMemory {
  Scratch scratch;
  Tile* tile;
  Unit* units;       // [kGroupHeads][units_per_head]
  float* skew;       // [64][kSkewPitch]
  float* diagonals;  // [kGroupHeads][kChunkKeys + 64]
};

/// Memory of one wave of targets; w counts targets from the wave's first.
struct WaveMemory {
  float* vertical;        // [targets][seqlen_k]
  float* slash;           // [targets][seqlen_k]
  float* overlap;         // [targets][chunks][64]
  float* row_max;         // [targets][chunks][64], log2 units
  float* row_sum;         // [targets][chunks][64]
  Candidate* candidates;  // [targets][2][max_size], with mass budgets
};

class Estimator {
 public:
  Estimator(const EstimateVerticalSlashArgs& args, const Executor& executor)
      : args_(args),
        executor_(executor),
        kernels_(kernels_for(args.shape.dtype)),
        scale_(args.softmax_scale),
        sequences_(args.shape.sequences()),
        seqlen_k_(args.shape.lengths.seqlen_k),
        num_chunks_((seqlen_k_ + kChunkKeys - 1) / kChunkKeys),
        units_per_head_((args.last_q + kernels_.rows - 1) / kernels_.rows),
        first_position_(seqlen_k_ - args.last_q) {
    const int64_t bytes_per_target = int64_t{seqlen_k_} * 2 * 4;
    const auto num_targets = static_cast<int64_t>(args.targets.size());
    wave_targets_ =
        std::min(num_targets, std::max<int64_t>(kGroupHeads, kWaveBytes / bytes_per_target));
    for (const VerticalSlashTarget& target : args.targets) {
      max_size_ = std::max({max_size_, target.vertical_size, target.slash_size});
    }
  }

  std::size_t bytes() {
    WorkspaceAllocator memory;
    take(memory);
    return memory.bytes();
  }

  void run(Workspace workspace) {
    WorkspaceAllocator memory(workspace);
    take(memory);
    const auto num_targets = static_cast<int32_t>(args_.targets.size());
    for (int32_t first = 0; first < num_targets;) first = run_wave(first);
  }

 private:
  void take(WorkspaceAllocator& memory) {
    const auto targets = static_cast<std::size_t>(wave_targets_);
    const auto keys = static_cast<std::size_t>(seqlen_k_);
    const std::size_t rows = static_cast<std::size_t>(num_chunks_) * kBlock;
    const bool by_mass = args_.vertical_p < 1 || args_.slash_p < 1;
    groups_ = memory.take<Group>(targets).data();
    wave_.vertical = memory.take<float>(targets * keys).data();
    wave_.slash = memory.take<float>(targets * keys).data();
    wave_.overlap = memory.take<float>(targets * rows).data();
    wave_.row_max = memory.take<float>(targets * rows).data();
    wave_.row_sum = memory.take<float>(targets * rows).data();
    wave_.candidates =
        memory.take<Candidate>(by_mass ? targets * 2 * static_cast<std::size_t>(max_size_) : 0)
            .data();
    threads_ = memory.take<ThreadMemory>(static_cast<std::size_t>(executor_.num_threads)).data();
    for (int32_t t = 0; t < executor_.num_threads; ++t) {
      const ThreadMemory thread = take_thread(memory);
      if (threads_ != nullptr) threads_[t] = thread;
    }
  }

  ThreadMemory take_thread(WorkspaceAllocator& memory) const {
    const int32_t head_dim = args_.shape.head_dim;
    const ScratchSizes sizes = kernels_.scratch_sizes(head_dim);
    const auto num_units = std::size_t{kGroupHeads} * static_cast<std::size_t>(units_per_head_);
    ThreadMemory thread;
    thread.scratch = {.scores = memory.take<float>(sizes.scores).data(),
                      .probabilities = memory.take<float>(sizes.probabilities).data(),
                      .keys = memory.take<float>(sizes.keys).data(),
                      .values = nullptr};
    thread.tile = memory.take<Tile>(1).data();
    thread.units = memory.take<Unit>(num_units).data();
    const std::size_t query_floats =
        static_cast<std::size_t>(kernels_.rows) * static_cast<std::size_t>(head_dim);
    float* queries = memory.take<float>(num_units * query_floats).data();
    thread.skew = memory.take<float>(std::size_t{kBlock} * kSkewPitch).data();
    thread.diagonals = memory.take<float>(std::size_t{kGroupHeads} * (kChunkKeys + kBlock)).data();
    if (queries != nullptr) {
      new (thread.tile) Tile;
      for (std::size_t u = 0; u < num_units; ++u) {
        (new (&thread.units[u]) Unit)->query = queries + u * query_floats;
      }
    }
    return thread;
  }

  /// Estimates targets from `first` on, as many as a wave holds; returns the first one left.
  int32_t run_wave(int32_t first) {
    const std::span targets = args_.targets;
    const auto end = static_cast<int32_t>(
        std::min<int64_t>(first + wave_targets_, static_cast<int64_t>(targets.size())));
    wave_first_ = first;
    int32_t num_groups = 0;
    for (int32_t t = first; t < end; ++t) {
      Group* group = num_groups > 0 ? &groups_[num_groups - 1] : nullptr;
      if (group != nullptr && group->num_targets < kGroupHeads &&
          share_keys(args_.shape, targets[t - 1], targets[t])) {
        ++group->num_targets;
      } else {
        groups_[num_groups++] = {t, 1};
      }
    }
    const int64_t tasks = int64_t{num_groups} * num_chunks_;
    share_out(executor_, executor_.num_threads, tasks, [this](int64_t worker, int64_t task) {
      add_statistics(threads_[worker], groups_[task / num_chunks_], int32_t(task % num_chunks_));
    });
    share_out(executor_, executor_.num_threads, tasks, [this](int64_t worker, int64_t task) {
      add_sums(threads_[worker], groups_[task / num_chunks_], int32_t(task % num_chunks_));
    });
    parallel_for(executor_, int64_t{2} * (end - first), [this, first](int64_t task) {
      const auto target = static_cast<int32_t>(first + task / 2);
      if (task % 2 == 0) {
        select_columns(target);
      } else {
        select_distances(target);
      }
    });
    return end;
  }

  // ---- Pass 1

  void add_statistics(ThreadMemory& thread, const Group& group, int32_t chunk) {
    set_up_units(thread, group);
    const int32_t begin = chunk * kChunkKeys;
    const int32_t end = std::min(seqlen_k_, begin + kChunkKeys);
    const AttendArgs attend = attend_args(thread);
    for (int32_t key = begin; key < end; key += kTileKeys) {
      set_tile(thread, args_.targets[group.first_target], key, std::min(end, key + kTileKeys));
      for (int u = 0; u < group.num_targets * units_per_head_; ++u) {
        kernels_.add_row_statistics(thread.units[u], attend, thread.scratch);
      }
    }
    for (int32_t i = 0; i < group.num_targets; ++i) {
      for (int u = 0; u < units_per_head_; ++u) {
        const Unit& unit = thread.units[i * units_per_head_ + u];
        const int64_t row = chunk_rows(group.first_target + i, chunk) + u * kernels_.rows;
        std::copy_n(unit.row_max, kernels_.rows, wave_.row_max + row);
        std::copy_n(unit.row_sum, kernels_.rows, wave_.row_sum + row);
      }
    }
  }

  // ---- Pass 2

  void add_sums(ThreadMemory& thread, const Group& group, int32_t chunk) {
    set_up_units(thread, group);
    alignas(64) float offsets[kGroupHeads][kBlock];
    for (int32_t i = 0; i < group.num_targets; ++i) row_offsets(group.first_target + i, offsets[i]);

    const int32_t begin = chunk * kChunkKeys;
    const int32_t end = std::min(seqlen_k_, begin + kChunkKeys);
    const int32_t num_diagonals = (end - begin + kBlock - 1) / kBlock * kBlock + kOverlap;
    for (int32_t i = 0; i < group.num_targets; ++i) {
      std::fill_n(thread.diagonals + i * (kChunkKeys + kBlock), num_diagonals, 0.0f);
    }
    std::fill_n(thread.skew, kBlock * kSkewPitch, 0.0f);
    const AttendArgs attend = attend_args(thread);
    for (int32_t key = begin; key < end; key += kBlock) {
      set_tile(thread, args_.targets[group.first_target], key, std::min(end, key + kBlock));
      if (end - key < kBlock) std::fill_n(thread.skew, kBlock * kSkewPitch, 0.0f);
      for (int32_t i = 0; i < group.num_targets; ++i) {
        float* columns = vertical(group.first_target + i) + key;
        std::fill_n(columns, std::min(end - key, kBlock), 0.0f);
        for (int u = 0; u < units_per_head_; ++u) {
          const int32_t row = u * kernels_.rows;
          kernels_.add_score_sums(thread.units[i * units_per_head_ + u], attend, offsets[i] + row,
                                  row, columns, thread.skew, thread.scratch);
        }
        float* diagonals = thread.diagonals + i * (kChunkKeys + kBlock);
        kernels_.add_diagonals(thread.skew,
                               diagonals + (num_diagonals - kSkewColumns - (key - begin)));
      }
    }
    for (int32_t i = 0; i < group.num_targets; ++i) {
      store_diagonals(group.first_target + i, chunk, num_diagonals,
                      thread.diagonals + i * (kChunkKeys + kBlock));
    }
  }

  /// For each row, log2 of its sum of 2^score over all chunks: P = 2^(score - offset). Rows that do
  /// not exist or are not finite get an offset that makes P = 0.
  void row_offsets(int32_t target, float* offset) const {
    for (int32_t row = 0; row < kBlock; ++row) {
      offset[row] = FLT_MAX;
      if (row >= args_.last_q) continue;
      const float* row_max = wave_.row_max + chunk_rows(target, 0) + row;
      const float* row_sum = wave_.row_sum + chunk_rows(target, 0) + row;
      float max = -FLT_MAX;
      for (int32_t c = 0; c < num_chunks_; ++c) max = std::max(max, row_max[c * kBlock]);
      double sum = 0;
      for (int32_t c = 0; c < num_chunks_; ++c) {
        if (row_sum[c * kBlock] != 0) {
          sum += row_sum[c * kBlock] * std::exp2(double{row_max[c * kBlock]} - max);
        }
      }
      const double log_sum = max + std::log2(sum);
      if (std::isfinite(log_sum)) offset[row] = static_cast<float>(log_sum);
    }
  }

  /// Diagonal i of a chunk is distance first_distance + i.
  int32_t first_distance(int32_t chunk, int32_t num_diagonals) const {
    return first_position_ + kBlock - chunk * kChunkKeys - num_diagonals;
  }

  /// A chunk owns its distances except the nearest 63, which the next chunk owns; the last one owns
  /// all.
  void store_diagonals(int32_t target, int32_t chunk, int32_t num_diagonals,
                       const float* diagonals) const {
    const int32_t owned_from = chunk + 1 < num_chunks_ ? kOverlap : 0;
    std::copy_n(diagonals, owned_from, wave_.overlap + chunk_rows(target, chunk));
    const int32_t first = first_distance(chunk, num_diagonals);
    for (int32_t i = std::max(owned_from, -first); i < num_diagonals; ++i) {
      if (first + i >= seqlen_k_) break;
      slash(target)[first + i] = diagonals[i];
    }
  }

  // ---- Selection

  void select_columns(int32_t t) const {
    const VerticalSlashTarget& target = args_.targets[t];
    select(t, 0, vertical(t), args_.sink, target.vertical_size, args_.vertical_p,
           target.vertical_index);
  }

  void select_distances(int32_t t) const {
    const VerticalSlashTarget& target = args_.targets[t];
    for (int32_t chunk = 0; chunk + 1 < num_chunks_; ++chunk) {
      const int32_t first = first_distance(chunk, kChunkKeys + kOverlap);
      const float* overlap = wave_.overlap + chunk_rows(t, chunk);
      for (int32_t i = std::max(0, -first); i < kOverlap; ++i) slash(t)[first + i] += overlap[i];
    }
    select(t, 1, slash(t), args_.local, target.slash_size, args_.slash_p, target.slash_index);
  }

  void select(int32_t t, int32_t which, float* scores, int32_t forced, int32_t size, double share,
              int32_t* index) const {
    const std::span<float> all(scores, static_cast<std::size_t>(seqlen_k_));
    double total = 0, forced_mass = 0;
    if (share < 1) {
      for (const float score : all) total += score;
      for (int32_t i = 0; i < forced; ++i) forced_mass += scores[i];
    }
    std::fill_n(scores, forced, kForcedScore);
    select_largest(all, size, index);
    if (share >= 1) return;
    Candidate* candidates = wave_.candidates + (int64_t{t - wave_first_} * 2 + which) * max_size_;
    keep_mass(all, forced_mass, size, share * total, index,
              {candidates, static_cast<std::size_t>(size)});
  }

  // ---- Shared

  int64_t chunk_rows(int32_t target, int32_t chunk) const {
    return (int64_t{target - wave_first_} * num_chunks_ + chunk) * kBlock;
  }
  float* vertical(int32_t target) const {
    return wave_.vertical + int64_t{target - wave_first_} * seqlen_k_;
  }
  float* slash(int32_t target) const {
    return wave_.slash + int64_t{target - wave_first_} * seqlen_k_;
  }

  AttendArgs attend_args(const ThreadMemory& thread) const {
    return {.tile = thread.tile,
            .visibility = {},
            .scale_log2 = scale_.log2,
            .head_dim = args_.shape.head_dim};
  }

  /// Packs the last rows of the group's heads.
  void set_up_units(ThreadMemory& thread, const Group& group) const {
    const int32_t first_row = args_.shape.lengths.seqlen_q - args_.last_q;
    for (int32_t i = 0; i < group.num_targets; ++i) {
      const VerticalSlashTarget& target = args_.targets[group.first_target + i];
      const HeadRows<std::byte> queries = query_rows<std::byte>(
          args_.q, sequences_.at(target.batch), target.head, dtype_bytes(args_.shape.dtype));
      for (int u = 0; u < units_per_head_; ++u) {
        Unit& unit = thread.units[i * units_per_head_ + u];
        const int32_t begin = u * kernels_.rows;
        unit.num_rows = std::min(kernels_.rows, args_.last_q - begin);
        unit.min_position = first_position_ + begin;
        unit.max_position = unit.min_position + unit.num_rows - 1;
        for (int32_t lane = 0; lane < kernels_.rows; ++lane) {
          const bool valid = lane < unit.num_rows;
          unit.position[lane] = valid ? unit.min_position + lane : unit.min_position;
          unit.query_row[lane] =
              valid ? static_cast<const void*>(queries.row(first_row + begin + lane)) : kZeroRow;
        }
        kernels_.pack_query(unit, args_.shape.head_dim, scale_.sign);
      }
    }
  }

  /// Keys [begin, end) of the target's KV head, which only rows before them do not see.
  void set_tile(ThreadMemory& thread, const VerticalSlashTarget& target, int32_t begin,
                int32_t end) const {
    const HeadRows<std::byte> keys =
        args_.k.head<std::byte>(sequences_.at(target.batch), args_.shape.kv_head(target.head),
                                dtype_bytes(args_.shape.dtype));
    Tile& tile = *thread.tile;
    tile.num_slots = (end - begin + kBlock - 1) / kBlock;
    for (int32_t s = 0; s < tile.num_slots; ++s) {
      Slot& slot = tile.slots[s];
      const int32_t first = begin + s * kBlock;
      slot.count = std::min(end - first, kBlock);
      slot.streams = 1;
      slot.contiguous = true;
      slot.masked = slot.count % 4 != 0 || first + slot.count - 1 > first_position_;
      slot.keep[0] = low_bits(slot.count);
      for (int32_t t = 0; t < kBlock; ++t) {
        const bool exists = t < slot.count;
        tile.position[s * kBlock + t] = exists ? first + t : INT32_MAX;
        tile.key_row[s * kBlock + t] =
            exists ? static_cast<const void*>(keys.row(first + t)) : kZeroRow;
      }
    }
    kernels_.load_keys(tile, thread.scratch, args_.shape.head_dim);
  }

  const EstimateVerticalSlashArgs& args_;
  const Executor& executor_;
  const KernelTable& kernels_;
  const QueryScale scale_;
  const Sequences sequences_;
  const int32_t seqlen_k_;
  const int32_t num_chunks_;
  const int units_per_head_;
  const int32_t first_position_;  // Of the first estimating row.
  int64_t wave_targets_;
  int32_t max_size_ = 0;
  int32_t wave_first_ = 0;
  Group* groups_ = nullptr;
  ThreadMemory* threads_ = nullptr;
  WaveMemory wave_ = {};
};

/// Without rows all scores are 0: the forced entries come first, and ties go to the smaller index.
void keep_first(int32_t* index, int32_t size, int32_t forced, double p) {
  const int32_t kept = p < 1 ? forced : size;
  std::iota(index, index + kept, 0);
  std::fill(index + kept, index + size, -1);
}

}  // namespace

std::size_t estimate_vertical_slash_bytes(const EstimateVerticalSlashArgs& args,
                                          const Executor& executor) {
  return Estimator(args, executor).bytes();
}

void estimate_vertical_slash(const EstimateVerticalSlashArgs& args, Workspace workspace,
                             const Executor& executor) {
  if (args.last_q > 0) return Estimator(args, executor).run(workspace);
  for (const VerticalSlashTarget& target : args.targets) {
    keep_first(target.vertical_index, target.vertical_size, args.sink, args.vertical_p);
    keep_first(target.slash_index, target.slash_size, args.local, args.slash_p);
  }
}

}  // namespace minference::cpu
