// Dynamic sharing of items among workers, each with memory of its own.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>

#include "core/backend.h"

namespace minference::cpu {

/// Runs work(worker, item) for every item in [0, num_items), each once. A worker's calls come one
/// after another, items in ascending order are taken by whoever is free.
template <typename Work>
void share_out(const Executor& executor, int64_t num_workers, int64_t num_items, const Work& work) {
  std::atomic<int64_t> next{0};
  parallel_for(executor, num_workers < num_items ? num_workers : num_items, [&](int64_t worker) {
    for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < num_items;) {
      work(worker, item);
    }
  });
}

}  // namespace minference::cpu
