// The engine's launches: runs blocks one after another, and the fibers of their threads.
// SPDX-License-Identifier: Apache-2.0
#include "engine.h"

#include <numeric>
#include <stdexcept>
#include <utility>

#include "indices.h"

namespace simt::engine {

constinit thread_local Thread* kernel_thread = nullptr;

namespace {

/// Order of blocks under Schedule::kRandom: i -> (factor i + offset) mod n, a permutation.
struct BlockOrder {
  uint64_t count;
  uint64_t factor = 1;
  uint64_t offset = 0;

  uint64_t operator()(uint64_t i) const {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(factor) * i + offset) % count);
  }
};

BlockOrder random_order(uint64_t count, std::mt19937_64& random) {
  BlockOrder order{count};
  order.offset = random() % count;
  do {
    order.factor = random() % count + 1;
  } while (std::gcd(order.factor, count) != 1);
  return order;
}

}  // namespace

Engine& Engine::instance() {
  static auto* engine = new Engine;  // Never destroyed: static objects may launch.
  return *engine;
}

Thread& LibraryCall::enter(const void* code_address) {
  if (kernel_thread == nullptr) throw Violation("a device function was called outside a kernel");
  Thread& thread = *kernel_thread;
  kernel_thread = nullptr;
  thread.code_address = code_address;
  return thread;
}

void Engine::launch(const KernelCall& call) {
  if (kernel_thread != nullptr) {
    LibraryCall inside;
    fail(inside.thread(), "launches a kernel: not supported");
  }
  const std::lock_guard lock(launch_mutex_);
  prepare(call);
  const uint64_t num_blocks = uint64_t{call.grid.x} * call.grid.y * call.grid.z;
  BlockOrder order{num_blocks};
  if (options_.schedule == Schedule::kRandom) order = random_order(num_blocks, random_);
  for (uint64_t i = 0; i < num_blocks && !failed_ && exception_ == nullptr; ++i) {
    run_block(order(i));
  }
  forget_block();
  if (exception_ != nullptr) std::rethrow_exception(std::exchange(exception_, nullptr));
  if (!failed_) return;
  throw Violation(failure_ + source_lines(failed_address_));
}

void Engine::prepare(const KernelCall& call) {
  call_ = call;
  options_ = simt::options();
  random_.seed(options_.seed);
  shared_.check_memory = options_.check_memory;
  // An uninstrumented kernel may initialise memory, and order threads by flags, unseen.
  shared_.check_initialized = call.instrumented;
  shared_.check_races = options_.check_races && call.instrumented;
  num_threads_ = static_cast<int>(call.block.x * call.block.y * call.block.z);
  while (threads_.size() < static_cast<std::size_t>(num_threads_)) {
    threads_.push_back(std::make_unique<Thread>());
  }
  warps_.resize(static_cast<std::size_t>((num_threads_ + 31) / 32));
  for (int id = 0; id < num_threads_; ++id) {
    Thread& thread = *threads_[static_cast<std::size_t>(id)];
    const auto linear = static_cast<unsigned>(id);
    thread.fiber.reserve(options_.stack_bytes);
    thread.id = id;
    thread.lane = id % 32;
    thread.warp = id / 32;
    thread.index = {linear % call.block.x, linear / call.block.x % call.block.y,
                    linear / call.block.x / call.block.y};
  }
  failed_ = false;
  exception_ = nullptr;
}

void Engine::run_block(uint64_t linear) {
  block_index_ = {static_cast<unsigned>(linear % call_.grid.x),
                  static_cast<unsigned>(linear / call_.grid.x % call_.grid.y),
                  static_cast<unsigned>(linear / call_.grid.x / call_.grid.y)};
  forget_block();
  check_knowledge_capacity();
  clocks_.order_all();
  shared_.start_block(call_.shared_bytes);
  start_threads();
  indices::block = block_index_;
  indices::block_extent = call_.block;
  indices::grid_extent = call_.grid;
  resume(launcher_, *pick_next(), /*leaving=*/false);
  kernel_thread = nullptr;
  indices::thread = indices::block = uint3{};
  indices::block_extent = indices::grid_extent = dim3(0, 0, 0);
  if (!failed_ && exception_ == nullptr) finish_block();
}

void Engine::start_threads() {
  num_live_ = num_threads_;
  barriers_.start_block();
  for (const Unit& unit : units_) unit.start_block(*this);
  for (std::size_t warp = 0; warp < warps_.size(); ++warp) {
    const int lanes = num_threads_ - static_cast<int>(warp) * 32;
    warps_[warp].start_block(static_cast<int>(warp),
                             lanes >= 32 ? kAllLanes : (uint32_t{1} << lanes) - 1);
  }
  for (int id = 0; id < num_threads_; ++id) {
    Thread& thread = *threads_[static_cast<std::size_t>(id)];
    thread.fiber.reset(&Engine::fiber_entry, static_cast<unsigned>(id));
    thread.barrier = -1;
    thread.in_collective = false;
    thread.fenced = false;
    thread.overheard.clear();
    thread.code_address = nullptr;
    wake(thread);
  }
}

// What a block that ended early left behind belongs to fibers that will never run again.
void Engine::forget_block() {
  queue_head_ = 0;
  queue_size_ = 0;
  predicate_waiters_.clear();
  operations_.clear();
  completing_.clear();
  flags_.clear();
  idle_yields_ = 0;
  for (int id = 0; id < num_threads_; ++id) {
    Thread& thread = *threads_[static_cast<std::size_t>(id)];
    thread.ready = nullptr;
    thread.copies.clear();
    thread.copy_groups.clear();
  }
}

void Engine::check_knowledge_capacity() {
  if (!clocks_.exhausted()) return;
  clocks_.restart();
  shared_.forget_accesses();
}

void Engine::fiber_entry() {
  Fiber::entered();
  Engine& engine = instance();
  Thread& thread = engine.current();
  bool thrown = false;
  try {
    kernel_thread = &thread;
    engine.call_.invoke(engine.call_.arguments);
  } catch (...) {
    engine.exception_ = std::current_exception();
    thrown = true;
  }
  kernel_thread = nullptr;
  if (thrown) Fiber::switch_to(thread.fiber, engine.launcher_, /*leaving=*/false);
  engine.finish_thread(thread);
}

void Engine::finish_thread(Thread& thread) {
  if (!thread.copies.empty()) {
    fail(thread, "exits with cp.async copies that it has not waited for");
  }
  for (const Unit& unit : units_) unit.thread_exits(*this, thread);
  thread.state = ThreadState::kFinished;
  --num_live_;
  warp_of(thread).lane_exited(*this, thread.lane);
  barriers_.thread_exited(*this);
  idle_yields_ = 0;
  run_next(thread, /*leaving=*/true);
}

void Engine::finish_block() {
  while (!operations_.empty()) {
    const AsyncOperation& operation = operations_.back().second;
    if (operation.must_be_awaited) {
      const Thread& thread = thread_at(operation.thread);
      record_failure(thread,
                     std::string("the block ends while ") + operation.what +
                         " is under way that nobody has waited for",
                     thread.code_address);
      return;
    }
    complete_async(operations_.back().first);
  }
}

}  // namespace simt::engine
