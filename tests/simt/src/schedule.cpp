// The engine's scheduling: which thread runs next, which wait, and what completes beside the
// threads.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>

#include "engine.h"
#include "indices.h"

namespace simt::engine {
namespace {

// A thread that polls memory yields each time. If this many yields in a row come from threads that
// do nothing else, what they wait for will never come.
constexpr uint64_t kMaxIdleYields = 4'000'000;

constexpr uint64_t kSwitchOneIn = 8;  // Schedule::kRandom, at points where no thread must wait.

}  // namespace

void Engine::wake(Thread& thread) {
  thread.state = ThreadState::kRunnable;
  queue_[(queue_head_ + queue_size_) % kMaxThreads] = &thread;
  ++queue_size_;
}

void Engine::sleep() {
  Thread& thread = *running_;
  thread.state = ThreadState::kWaiting;
  idle_yields_ = 0;
  run_next(thread, /*leaving=*/false);
  thread.state = ThreadState::kRunnable;
}

void Engine::yield() {
  Thread& thread = *running_;
  if (++idle_yields_ > kMaxIdleYields) {
    fail(thread,
         "polls memory for something that no thread of the block does any more (blocks run "
         "one after another)");
  }
  wake(thread);
  run_next(thread, /*leaving=*/false);
}

void Engine::maybe_yield() {
  if (options_.schedule == Schedule::kRandom && random(kSwitchOneIn) == 0) yield();
}

void Engine::poll() {
  constexpr unsigned kPollsPerYield = 16;
  if (++polls_ % kPollsPerYield == 0) {
    yield();
  } else {
    maybe_yield();
  }
}

void Engine::block_until(std::function<bool()>&& ready, WaitText text) {
  maybe_yield();
  if (ready()) return;
  Thread& thread = *running_;
  thread.ready = std::move(ready);
  thread.wait = text;
  predicate_waiters_.push_back(&thread);
  sleep();
}

bool Engine::ask_predicates() {
  ask_predicates_ = false;
  const auto is_ready = [this](Thread* thread) {
    if (!thread->ready()) return false;
    thread->ready = nullptr;
    wake(*thread);
    return true;
  };
  const auto waiting =
      std::remove_if(predicate_waiters_.begin(), predicate_waiters_.end(), is_ready);
  const bool any = waiting != predicate_waiters_.end();
  predicate_waiters_.erase(waiting, predicate_waiters_.end());
  return any;
}

void Engine::complete(AsyncOperation&& operation) {
  completing_.push_back(std::move(operation));
  completing_.back().complete();
  completing_.pop_back();
  notify();
}

uint64_t Engine::start_async(AsyncOperation&& operation) {
  const uint64_t name = next_operation_++;
  if (options_.async == AsyncCopies::kEager) {
    complete(std::move(operation));
  } else {
    operations_.emplace_back(name, std::move(operation));
  }
  return name;
}

void Engine::complete_async(uint64_t name) {
  const auto found = std::find_if(operations_.begin(), operations_.end(),
                                  [name](const auto& entry) { return entry.first == name; });
  if (found == operations_.end()) return;
  AsyncOperation operation = std::move(found->second);
  operations_.erase(found);
  complete(std::move(operation));
}

bool Engine::complete_some_async() {
  if (operations_.empty()) return false;
  const bool any = options_.async == AsyncCopies::kRandom;
  complete_async(operations_[any ? random(operations_.size()) : 0].first);
  return true;
}

Thread* Engine::pick_next() {
  if (options_.async == AsyncCopies::kRandom && random(kSwitchOneIn) == 0) complete_some_async();
  if (ask_predicates_ && !predicate_waiters_.empty()) ask_predicates();
  while (queue_size_ == 0) {
    if (num_live_ == 0) return nullptr;  // finish_block() handles what is still in flight.
    if (!predicate_waiters_.empty() && ask_predicates()) break;
    if (!complete_some_async()) return nullptr;
  }
  if (options_.schedule == Schedule::kRandom) {
    std::swap(queue_[queue_head_], queue_[(queue_head_ + random(queue_size_)) % kMaxThreads]);
  }
  Thread* next = queue_[queue_head_];
  queue_head_ = (queue_head_ + 1) % kMaxThreads;
  --queue_size_;
  return next;
}

void Engine::run_next(Thread& thread, bool leaving) {
  Thread* next = pick_next();
  if (next == &thread) return;
  if (next == nullptr) {
    if (num_live_ > 0) fail_deadlock();
    Fiber::switch_to(thread.fiber, launcher_, /*leaving=*/true);
    std::abort();  // The last fiber never continues after this.
  }
  resume(thread.fiber, *next, leaving);
}

void Engine::resume(Fiber& from, Thread& to, bool leaving) {
  running_ = &to;
  indices::thread = to.index;
  Fiber::switch_to(from, to.fiber, leaving);
}

}  // namespace simt::engine
