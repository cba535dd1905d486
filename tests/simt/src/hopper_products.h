// wgmma of the running block. A warpgroup's products happen in the order in which it issues them,
// each at some time between its issue by all four warps and the wait for its group.
//
// Accumulators live here from the issue until the thread waits and says that it reads them
// (keep_registers). Meanwhile the thread's own array holds NaNs; if they change, the array was
// written. Shared operands are read-only meanwhile; register operands are compared.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "clocks.h"
#include "hopper_operands.h"

namespace simt::engine {

class Engine;
struct Thread;
struct Collective;

/// A warp's arguments to one wgmma. All but the pointers are the same in all of its threads.
struct ProductCall {
  float* d;
  const uint32_t* a;  // Four registers; null if A is in shared memory.
  int n;
  uint64_t descriptor_a;
  uint64_t descriptor_b;
  bool accumulate;
  bool transposed_b;
  bool bf16;

  bool same_as(const ProductCall& other) const;
};

/// A thread's accumulators while the tensor core owns them.
struct Accumulators {
  float* registers = nullptr;
  std::vector<float> values;
  int64_t last_product = 0;  // Number of the last product that changes them.
};

struct Product {
  ProductCall call{};
  int64_t group = 0;
  unsigned issued_by = 0;  // A bit per warp.
  unsigned waited_by = 0;
  bool done = false;
  bool readers_cleared = false;
  uint64_t operation = 0;
  struct PerThread {
    Accumulators* accumulators = nullptr;
    const uint32_t* a = nullptr;
    std::array<uint32_t, 4> a_values{};
  };
  std::array<PerThread, 128> threads{};
};

class Warpgroup {
 public:
  void start_block(int number);

  /// The lanes of warp `warp` (0 to 3) issue one product.
  void issue(Engine& engine, int warp, const Collective& collective);
  void fence(int warp) { warps_[static_cast<std::size_t>(warp)].fenced = true; }
  void commit(int warp);

  /// Product number up to which (exclusive) the warp must wait so that `pending` groups remain.
  int64_t wait_target(int warp, int pending) const;
  bool issued_by_all(int64_t target) const;
  /// Completes the products before `target` for this thread.
  void wait(Engine& engine, const Thread& thread, int64_t target);

  void keep(Engine& engine, const Thread& thread, float* registers, int count);
  void thread_exits(Engine& engine, const Thread& thread);

 private:
  struct WarpState {
    int64_t issued = 0;               // Products; their numbers count from 0 in each block.
    bool fenced = false;              // Since the last wait.
    int64_t group = 0;                // Committed groups.
    std::vector<int64_t> group_ends;  // Per committed group: products before its end.
  };

  Product& product(int64_t number) { return *products_[static_cast<std::size_t>(number - first_)]; }
  int64_t end() const { return first_ + static_cast<int64_t>(products_.size()); }
  int agent() const;

  void check_call(Engine& engine, const Thread& thread, const ProductCall& call) const;
  void read_operands(Engine& engine, const Thread& thread, int warp, const Product& product,
                     bool first_warp);
  Accumulators& take(Engine& engine, const Thread& thread, const ProductCall& call, int64_t number);
  void execute_through(Engine& engine, int64_t number);
  void execute(Engine& engine, Product& product);
  void clear_readers(Engine& engine, Product& product);
  void forget_old();

  int number_ = 0;
  int64_t first_ = 0;  // Number of the oldest product that is kept.
  std::deque<std::unique_ptr<Product>> products_;
  std::array<WarpState, 4> warps_;
  std::array<int64_t, 128> waited_{};  // Per thread: number of products that it has waited for.
  std::array<std::vector<std::unique_ptr<Accumulators>>, 128> accumulators_;
};

class Products {
 public:
  void start_block();

  /// The warpgroup of the thread. Violation if the block does not have all of its threads.
  Warpgroup& of(Engine& engine, const Thread& thread);
  void thread_exits(Engine& engine, const Thread& thread);

 private:
  std::array<Warpgroup, kMaxThreads / 128> warpgroups_;
};

}  // namespace simt::engine
