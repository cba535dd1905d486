// Bulk copies of the running block: loads, which report to an mbarrier, and stores, which their
// thread waits for in groups.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <unordered_map>
#include <vector>

#include "hopper_mbarriers.h"
#include "hopper_tensor_map.h"

namespace simt::engine {

struct BulkCopy {
  std::size_t shared_offset = 0;
  std::size_t bytes = 0;  // In shared memory.
  std::vector<Piece> pieces;
  int agent = 0;
  const char* what = "";
};

struct BulkLoad : BulkCopy {
  MbarrierState* barrier = nullptr;
  uint64_t operation = 0;
};

/// Reads all of its shared memory first, then writes.
struct BulkStore : BulkCopy {
  std::vector<char> data;  // Between the two.
  bool has_read = false;
  bool has_written = false;
  uint64_t read_operation = 0;
  uint64_t write_operation = 0;
};

class BulkCopies {
 public:
  void start_block();

  /// Returns a copy to pass to start_load() or start_store(), owned here so that a violation leaks
  /// nothing.
  BulkLoad& new_load() { return loads_.emplace_back(); }
  BulkStore& new_store() { return stores_.emplace_back(); }

  void start_load(Engine& engine, const Thread& thread, BulkLoad& load);
  void start_store(Engine& engine, const Thread& thread, BulkStore& store);
  void commit(const Thread& thread);

  /// Completes all but the last `pending` groups of the thread: either only their reads, or all of
  /// it.
  void wait(Engine& engine, const Thread& thread, std::size_t pending, bool read_only);

  /// A violation if copies of the thread may still read shared memory.
  void thread_exits(Engine& engine, const Thread& thread);

 private:
  using Group = std::vector<BulkStore*>;
  struct ThreadGroups {
    Group open;
    std::deque<Group> committed;  // As far as the thread knows, these are not written yet.
    std::size_t num_read = 0;     // How many of these, from the oldest, are known to be read.
  };

  static void read(Engine& engine, BulkStore& store);
  static void write(Engine& engine, BulkStore& store);
  static void finish_read(Engine& engine, const Thread& thread, const Group& group);

  std::deque<BulkLoad> loads_;
  std::deque<BulkStore> stores_;
  std::unordered_map<int, ThreadGroups> groups_;  // By thread.
};

}  // namespace simt::engine
