// Stage 2 of vertical-slash: a head's ascending distances -> runs, one block per (batch, head). On
// valid lists it makes the same runs as core/runs.h; on any list it stays in bounds, see below.
//
// plan_runs is a chain: whether a distance joins a run depends on where the run began, because its
// far end is rounded from there. But [d, d + 64) always touches a distance at most 64 on, and even
// rounded (by at most 63) never one 128 on. So the list falls into clusters (gaps of at most 64)
// and the clusters into stretches (gaps of at most 127). Only within a stretch is there a chain
// over its clusters, which one thread walks.
//
// Untrusted lists: only entries in [0, seqlen_k) count, and only those above the largest before
// them (a running maximum). So runs begin more than 64 apart in any list, and max_runs() entries
// hold them.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include "core/check.h"
#include "core/runs.h"
#include "cuda/arch/launch.h"
#include "cuda/arch/shared.h"
#include "cuda/common/stages.h"
#include "cuda/device/thread_group.h"

namespace minference::cuda {
namespace {

using device::BlockGroup;
using device::exclusive_scan;
using device::Max;
using device::ScanStorage;
using device::Sum;

/// One entry per thread and step: 6K distances take 6 steps. A block fills half of an SM's 2048
/// threads; there are only batch * num_heads_q blocks.
struct PlanTraits {
  static constexpr int kThreads = 1024;
  using Group = BlockGroup<kThreads>;

  struct SharedStorage {
    ScanStorage<Group, Max<int32_t>> max_scan;
    ScanStorage<Group, Sum<int32_t>> sum_scan;
    // Clusters that begin in this step, in order.
    int32_t first[kThreads];        // Smallest distance.
    int32_t last_before[kThreads];  // Largest distance before the cluster; -1: none.
    int32_t hi_before[kThreads];    // If a run begins here: the far end of the previous run.
    uint8_t begins_run[kThreads];
    int32_t lo;  // Where the last run begins.
  };
};

/// What a step passes to the next one. The same in all threads.
struct Carry {
  int32_t max_distance = -1;
  int32_t lo = 0;  // Start of the last run, if there is one.
  int32_t num_runs = 0;
};

/// Gap to the previous cluster from which on a run always begins.
constexpr int32_t kSurelyApart = 2 * kBlock;

__device__ bool begins_stretch(const PlanTraits::SharedStorage& storage, int32_t cluster) {
  return storage.last_before[cluster] < 0 ||
         storage.first[cluster] - storage.last_before[cluster] >= kSurelyApart;
}

/// Lists the clusters that begin among the block's distances (-1: none). Returns their number.
__device__ int32_t find_clusters(PlanTraits::SharedStorage& storage, int32_t distance,
                                 Carry& carry) {
  using Group = PlanTraits::Group;
  const auto max = exclusive_scan<Group>(storage.max_scan, distance);
  const int32_t last_before =
      max.exclusive > carry.max_distance ? max.exclusive : carry.max_distance;
  if (max.total > carry.max_distance) carry.max_distance = max.total;
  const bool begins = distance >= 0 && (last_before < 0 || distance - last_before > kBlock);
  const auto position = exclusive_scan<Group>(storage.sum_scan, begins ? 1 : 0);
  if (begins) {
    storage.first[position.exclusive] = distance;
    storage.last_before[position.exclusive] = last_before;
  }
  Group::sync();  // The clusters are listed.
  return position.total;
}

/// Decides which clusters begin a run: the thread of a stretch's first cluster walks the stretch.
/// `lo` is where the last run before this step begins.
__device__ void chain_clusters(PlanTraits::SharedStorage& storage, int32_t num_clusters,
                               int32_t lo) {
  const auto thread = static_cast<int32_t>(threadIdx.x);
  // The step's first cluster may continue a stretch of the previous step.
  const bool walks = thread < num_clusters && (thread == 0 || begins_stretch(storage, thread));
  if (walks) {
    int32_t cluster = thread;
    if (begins_stretch(storage, cluster)) {
      // The far end of the previous run. The thread that walks the previous stretch writes it, or
      // this one does if that stretch was in the previous step.
      if (cluster == 0) {
        storage.hi_before[0] = round_far_end(lo, storage.last_before[0] + kBlock);
      }
      storage.begins_run[cluster] = 1;
      lo = storage.first[cluster++];
    }
    for (; cluster < num_clusters; ++cluster) {
      const int32_t hi = round_far_end(lo, storage.last_before[cluster] + kBlock);
      const bool apart = storage.first[cluster] > hi;
      if (apart) storage.hi_before[cluster] = hi;
      if (begins_stretch(storage, cluster)) break;  // Another thread walks from here.
      storage.begins_run[cluster] = apart ? 1 : 0;
      if (apart) lo = storage.first[cluster];
    }
    if (cluster == num_clusters) storage.lo = lo;
  }
  PlanTraits::Group::sync();  // All clusters are decided.
}

/// Appends the runs that begin in this step, and completes the runs before them.
__device__ void write_runs(PlanTraits::SharedStorage& storage, int32_t num_clusters, Run* runs,
                           Carry& carry) {
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const bool begins = thread < num_clusters && storage.begins_run[thread] != 0;
  const auto position = exclusive_scan<PlanTraits::Group>(storage.sum_scan, begins ? 1 : 0);
  if (begins) {
    const int32_t run = carry.num_runs + position.exclusive;
    runs[run].lo = storage.first[thread];
    if (run > 0) runs[run - 1].hi = storage.hi_before[thread];
  }
  carry.num_runs += position.total;
  if (num_clusters > 0) carry.lo = storage.lo;
}

struct PlanParams {
  HeadLists<const int32_t> slash_index;
  HeadLists<Run> runs;
  HeadLists<int32_t> run_count;
  int32_t num_heads_q;
  int32_t seqlen_k;
};

/// Grid: batch * num_heads_q.
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads)
    plan_vertical_slash_kernel(const __grid_constant__ PlanParams params) {
  auto& storage = arch::shared_storage<typename Traits::SharedStorage>();
  const int32_t batch = static_cast<int32_t>(blockIdx.x) / params.num_heads_q;
  const int32_t head = static_cast<int32_t>(blockIdx.x) % params.num_heads_q;
  const int32_t* const distances = params.slash_index.at(batch, head);
  Run* const runs = params.runs.at(batch, head);
  const auto thread = static_cast<int32_t>(threadIdx.x);

  Carry carry;
  for (int32_t begin = 0; begin < params.slash_index.size; begin += Traits::kThreads) {
    int32_t distance = -1;
    if (thread < params.slash_index.size - begin) distance = distances[begin + thread];
    if (distance >= params.seqlen_k) distance = -1;
    if (distance < 0) distance = -1;
    const int32_t num_clusters = find_clusters(storage, distance, carry);
    chain_clusters(storage, num_clusters, carry.lo);
    write_runs(storage, num_clusters, runs, carry);
    Traits::Group::sync();  // The clusters are read: the next step may list its own.
  }
  if (thread == 0) {
    if (carry.num_runs > 0) {
      runs[carry.num_runs - 1].hi = round_far_end(carry.lo, carry.max_distance + kBlock);
    }
    *params.run_count.at(batch, head) = carry.num_runs;
  }
  for (int32_t run = carry.num_runs + thread; run < params.runs.size; run += Traits::kThreads) {
    runs[run] = {0, 0};
  }
}

}  // namespace

void plan_vertical_slash(const PlanArgs& args, const Executor& executor) {
  MINF_ASSERT(args.runs.size >= max_runs(args.slash_index.size, args.seqlen_k));
  const PlanParams params{.slash_index = args.slash_index,
                          .runs = args.runs,
                          .run_count = args.run_count,
                          .num_heads_q = args.num_heads_q,
                          .seqlen_k = args.seqlen_k};
  arch::launch("plan_vertical_slash", &plan_vertical_slash_kernel<PlanTraits>,
               {dim3(static_cast<unsigned>(args.batch * args.num_heads_q)),
                dim3(PlanTraits::kThreads), sizeof(PlanTraits::SharedStorage)},
               static_cast<cudaStream_t>(executor.stream), params);
}

void fill_lists(std::span<int32_t> lists, const Executor& executor) {
  constexpr int kAllOnes = 0xff;  // In each byte.
  MINF_CUDA(cudaMemsetAsync(lists.data(), kAllOnes, lists.size_bytes(),
                            static_cast<cudaStream_t>(executor.stream)));
}

}  // namespace minference::cuda
