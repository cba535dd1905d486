// The library's own threads, for callers that bring no parallel_for.
//
// The calling thread works too, and workers only help: a call makes progress even if the workers
// are busy with other calls, or do not exist, as in a forked child.
// SPDX-License-Identifier: Apache-2.0
#include "core/thread_pool.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace minference {
namespace {

/// One parallel_for. Lives on its caller's stack; `helpers` keeps it there until all have left.
struct Job {
  minf_task task;
  void* context;
  int64_t num_tasks;
  std::atomic<int64_t> next{0};
  int helpers = 0;  // Guarded by ThreadPool::mutex_.

  void work() {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < num_tasks;) {
      task(i, context);
    }
  }
};

class ThreadPool {
 public:
  explicit ThreadPool(int num_workers) : process_(getpid()) {
    workers_.reserve(static_cast<std::size_t>(num_workers));
    for (int i = 0; i < num_workers; ++i) workers_.emplace_back([this] { help(); });
  }

  ~ThreadPool() {
    if (getpid() != process_) {  // Forked: the threads are the parent's.
      for (std::thread& worker : workers_) worker.detach();
      return;
    }
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    work_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  void run(Job& job) {
    {
      const std::lock_guard lock(mutex_);
      jobs_.push_back(&job);
    }
    work_.notify_all();
    job.work();
    std::unique_lock lock(mutex_);
    withdraw(job);
    left_.wait(lock, [&job] { return job.helpers == 0; });
  }

 private:
  void help() {
    std::unique_lock lock(mutex_);
    while (true) {
      work_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
      if (stopping_) return;
      Job& job = *jobs_.front();
      ++job.helpers;
      lock.unlock();
      job.work();
      lock.lock();
      withdraw(job);  // No task is left, so no other worker needs to look.
      if (--job.helpers == 0) left_.notify_all();
    }
  }

  void withdraw(const Job& job) { std::erase(jobs_, &job); }

  std::mutex mutex_;
  std::condition_variable work_;  // There is a job, or the pool is stopping.
  std::condition_variable left_;  // Some job has no helpers left.
  std::vector<Job*> jobs_;
  std::vector<std::thread> workers_;
  pid_t process_;
  bool stopping_ = false;
};

}  // namespace

int32_t available_threads() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return std::max(1, CPU_COUNT(&allowed));
  return std::max(1, static_cast<int32_t>(std::thread::hardware_concurrency()));
}

void pool_parallel_for(int64_t num_tasks, minf_task task, void* task_context, void*) {
  static ThreadPool pool(available_threads() - 1);
  Job job{task, task_context, num_tasks};
  pool.run(job);
}

}  // namespace minference
