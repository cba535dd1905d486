// The library's own pool from inside: each task runs once, for calls side by side, nested, and in a
// forked child. Built with ThreadSanitizer, it shows races in the pool.
// SPDX-License-Identifier: Apache-2.0
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <thread>
#include <vector>

#include "check.h"
#include "core/backend.h"
#include "core/thread_pool.h"
#include "cpu/backend.h"

namespace {

using minference::Executor;

Executor own_pool() { return {.num_threads = 8, .parallel_for = &minference::pool_parallel_for}; }

/// Whether each task ran once. Tasks count without synchronisation, so two runs of one task, or a
/// return before the last has ended, are a race.
bool runs_each_task_once(int64_t num_tasks) {
  std::vector<int> runs(static_cast<std::size_t>(num_tasks), 0);
  minference::parallel_for(own_pool(), num_tasks,
                           [&](int64_t i) { ++runs[static_cast<std::size_t>(i)]; });
  return std::all_of(runs.begin(), runs.end(), [](int count) { return count == 1; });
}

void test_sizes() {
  for (const int64_t num_tasks : {0, 1, 2, 3, 64, 5000}) {
    CHECK(runs_each_task_once(num_tasks), num_tasks);
  }
  // Bypasses the shortcut of parallel_for: the pool itself gets nothing or one thing to do.
  int runs = 0;
  const minf_task count = [](int64_t, void* context) { ++*static_cast<int*>(context); };
  minference::pool_parallel_for(0, count, &runs, nullptr);
  CHECK(runs == 0);
  minference::pool_parallel_for(1, count, &runs, nullptr);
  CHECK(runs == 1);
}

void test_concurrent_callers() {
  std::vector<int> num_good(6, 0);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 6; ++caller) {
    callers.emplace_back([&num_good, caller] {
      for (int repeat = 0; repeat < 50; ++repeat) {
        num_good[static_cast<std::size_t>(caller)] +=
            runs_each_task_once(1 + caller * 7 + repeat % 5);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const int good : num_good) CHECK(good == 50, good, "of 50 calls");
}

/// A task may use the pool: the calling thread works too, so it never waits for a free worker.
void test_nested() {
  std::atomic<int64_t> sum{0};
  minference::parallel_for(own_pool(), 10, [&](int64_t i) {
    minference::parallel_for(own_pool(), 10, [&](int64_t j) { sum += 10 * i + j; });
  });
  CHECK(sum == 99 * 100 / 2, sum.load());
}

/// The child has no workers, and must not wait for any.
void test_forked_child() {
#if defined(__SANITIZE_THREAD__)
  std::printf("skipped: fork of a threaded process under ThreadSanitizer\n");
#else
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // Fails a child that hangs.
    int64_t sum = 0;
    minference::parallel_for(own_pool(), 100, [&](int64_t i) { sum += i; });
    _exit(sum == 4950 ? 0 : 1);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child && status == 0, "status", status);
#endif
}

}  // namespace

int main() {
  CHECK(minference::available_threads() >= 1);
  test_sizes();
  test_concurrent_callers();
  test_nested();
  test_forked_child();
  return minference::test::finish();
}
