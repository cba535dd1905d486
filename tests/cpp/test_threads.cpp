// Threads: any number of them and any pool give the same bits, and calls can run side by side.
// Built with ThreadSanitizer, this is the test of the library's own pool.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "minference/minference.hpp"

namespace {

namespace mi = minference;

constexpr int64_t kSeqlen = 300, kHeadsQ = 4, kHeadsKv = 2, kDim = 32;

/// A head of each estimated pattern, one A-shape and one dense: unequal work for the scheduler.
const std::vector<mi::Pattern> kPatterns = {
    mi::vertical_slash(/*vertical_size=*/40, /*slash_size=*/110), mi::block_sparse(/*top_k=*/2),
    mi::a_shape(/*sink=*/8, /*window=*/64), mi::dense()};

struct Problem {
  std::vector<float> q, k, v;

  Problem() {
    std::mt19937 generator(0);
    std::normal_distribution<float> normal;
    for (auto [values, heads] : {std::pair{&q, kHeadsQ}, {&k, kHeadsKv}, {&v, kHeadsKv}}) {
      values->resize(static_cast<std::size_t>(kSeqlen * heads * kDim));
      std::generate(values->begin(), values->end(), [&] { return normal(generator); });
    }
  }

  std::vector<float> attend(const mi::Exec& exec) const {
    std::vector<float> out(q.size());
    mi::prefill_attention({q.data(), {1, kSeqlen, kHeadsQ, kDim}},
                          {k.data(), {1, kSeqlen, kHeadsKv, kDim}},
                          {v.data(), {1, kSeqlen, kHeadsKv, kDim}}, kPatterns,
                          {out.data(), {1, kSeqlen, kHeadsQ, kDim}}, {}, exec);
    return out;
  }
};

mi::Exec with_threads(int32_t num_threads) {
  mi::Exec exec;
  exec.num_threads = num_threads;
  return exec;
}

/// A host's thread pool with one thread per task, the most concurrency possible.
void thread_per_task(int64_t num_tasks, minf_task task, void* task_context, void* context) {
  ++*static_cast<int*>(context);
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < num_tasks; ++i) threads.emplace_back(task, i, task_context);
  for (std::thread& thread : threads) thread.join();
}

void test_any_number_of_threads(const Problem& problem) {
  const std::vector<float> want = problem.attend(with_threads(1));
  for (const int32_t num_threads : {2, 3, 8, 0}) {
    CHECK(problem.attend(with_threads(num_threads)) == want);
  }
  int num_regions = 0;
  mi::Exec exec = with_threads(4);
  exec.parallel_for = &thread_per_task;
  exec.parallel_for_context = &num_regions;
  CHECK(problem.attend(exec) == want);
  CHECK(num_regions > 0);
}

void test_concurrent_calls(const Problem& problem) {
  const std::vector<float> want = problem.attend(with_threads(1));
  std::vector<std::vector<float>> got(4);
  std::vector<std::string> errors(got.size());
  std::vector<std::thread> callers;
  for (std::size_t i = 0; i < got.size(); ++i) {
    callers.emplace_back([&, i] {
      for (int repeat = 0; repeat < 3; ++repeat) got[i] = problem.attend(with_threads(2));
      // The error text belongs to the thread that failed.
      const std::string name = "isa_" + std::to_string(i);
      try {
        mi::set_cpu_isa(name.c_str());
      } catch (const mi::Error& error) {
        errors[i] = error.what();
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (std::size_t i = 0; i < got.size(); ++i) {
    CHECK(got[i] == want);
    CHECK(errors[i].find("isa_" + std::to_string(i)) != std::string::npos);
  }
}

}  // namespace

int main() {
  const Problem problem;
  for (const mi::Capability& isa : mi::cpu_isas()) {
    if (!isa.available) {
      std::printf("skipped %s: %s\n", isa.name.c_str(), isa.reason.c_str());
      continue;
    }
    mi::set_cpu_isa(isa.name.c_str());
    test_any_number_of_threads(problem);
    test_concurrent_calls(problem);
  }
  return minference::test::finish();
}
