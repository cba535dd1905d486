// SPDX-License-Identifier: Apache-2.0
#include "launch.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <thread>

#include "cluster.h"

namespace ptxsim {
namespace {

constexpr u32 kMaxThreads = 1024;  // Per block.
constexpr u32 kMaxBlocks = 16;     // Per cluster.

std::string text(const Dim3& dim) {
  return "(" + std::to_string(dim.x) + ", " + std::to_string(dim.y) + ", " + std::to_string(dim.z) +
         ")";
}

void check_launch(const Launch& launch) {
  const Function& function = *launch.kernel->function;
  const Dim3 &grid = launch.grid, &block = launch.block, &cluster = launch.cluster;
  const auto refuse = [&](const std::string& what) { throw Error(function.name + ": " + what); };
  if (u64{grid.x} * grid.y * grid.z == 0) refuse("the grid " + text(grid) + " is empty");
  if (u64{block.x} * block.y * block.z == 0) refuse("the block " + text(block) + " is empty");
  if (u64{cluster.x} * cluster.y * cluster.z == 0) {
    refuse("the cluster " + text(cluster) + " is empty");
  }
  if (grid.x % cluster.x != 0 || grid.y % cluster.y != 0 || grid.z % cluster.z != 0) {
    refuse("the grid " + text(grid) + " is no multiple of the cluster " + text(cluster));
  }
  if (cluster.count() > kMaxBlocks) refuse("more than 16 blocks in the cluster " + text(cluster));
  const u32 most = function.max_threads == 0 ? kMaxThreads : function.max_threads;
  if (u64{block.x} * block.y * block.z > most) {
    refuse("the block " + text(block) + " has more than " + std::to_string(most) + " threads");
  }
  const u32* const required = function.cluster;
  if (required[0] != 0 &&
      (required[0] != cluster.x || required[1] != cluster.y || required[2] != cluster.z)) {
    refuse("the cluster " + text(cluster) + " is not the kernel's .reqnctapercluster " +
           text({required[0], required[1], required[2]}));
  }
}

/// The clusters of a launch, distributed in order to host threads.
class Queue {
 public:
  Queue(const Launch& launch, u32 num_threads)
      : launch_(launch),
        count_(launch.grid.count() / launch.cluster.count()),
        running_(num_threads),
        counts_(num_threads) {
    for (auto& index : running_) index = count_;
    for (Counts& counts : counts_) {
      counts.ops.resize(launch.kernel->ops.size());
    }
  }

  u32 count() const { return count_; }

  void work(u32 thread) {
    static thread_local Buffers buffers;
    while (!failed_) {
      running_[thread] = 0;  // No other thread is first until the index is known.
      const u32 index = next_++;
      running_[thread] = std::min(index, count_);
      if (index >= count_) break;
      try {
        run_one(thread, index, buffers);
      } catch (...) {
        if (!failed_.exchange(true)) error_ = std::current_exception();
      }
    }
    running_[thread] = count_;
  }

  /// Adds up the counts, and rethrows an error.
  void finish(Counts* total) const {
    if (total != nullptr) {
      for (const Counts& counts : counts_) total->add(counts);
    }
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void run_one(u32 thread, u32 index, Buffers& buffers) {
    Cluster cluster;
    cluster.launch = &launch_;
    cluster.counts = &counts_[thread];
    constexpr u64 kOdd = 0x9e3779b97f4a7c15;
    if (options().landing == Landing::kRandom) cluster.random.seed(options().seed + kOdd * index);
    set_up(cluster, index, buffers);
    run_cluster(cluster, [&] {
      if (failed_) return true;
      return std::all_of(running_.begin(), running_.end(),
                         [&](const std::atomic<u32>& other) { return other >= index; });
    });
  }

  const Launch& launch_;
  const u32 count_;
  std::atomic<u32> next_ = 0;
  std::atomic<bool> failed_ = false;
  std::vector<std::atomic<u32>> running_;  // The cluster that each host thread runs.
  std::vector<Counts> counts_;
  std::exception_ptr error_;
};

}  // namespace

void run(const Launch& launch, Counts* counts) {
  check_launch(launch);
  const u32 clusters = launch.grid.count() / launch.cluster.count();
  const u32 num_threads = std::clamp(options().num_threads, 1u, clusters);
  Queue queue(launch, num_threads);
  std::vector<std::thread> threads;
  for (u32 thread = 1; thread < num_threads; ++thread) {
    threads.emplace_back([&queue, thread] { queue.work(thread); });
  }
  queue.work(0);
  for (std::thread& thread : threads) thread.join();
  queue.finish(counts);
}

}  // namespace ptxsim
