// The engine: runs one block at a time, one fiber per thread, and decides which thread runs next.
//
// A thread that must wait leaves the run queue, and whoever makes its condition true puts it back.
// So a deadlock is an empty run queue, not a matter of time. Beside the threads there are
// asynchronous operations (copies in flight). The engine completes them as late, as early or as
// randomly as the options say, and at the latest when no thread can run.
//
// Everything here runs on the host thread that launched. Library code is not checked, even while it
// runs on a thread's fiber; kernel_thread says whose kernel code is running.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <simt/launch.h>
#include <simt/simt.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include "barriers.h"
#include "clocks.h"
#include "device_heap.h"
#include "fiber.h"
#include "shared_memory.h"
#include "warps.h"

namespace simt::engine {

/// What a thread waits for, for deadlock reports: a printf format and two long long values for it,
/// or a function that makes the text on demand.
struct WaitText {
  const char* format = "";
  long long first = 0;
  long long second = 0;
  std::function<std::string()> describe = nullptr;
};

/// One cp.async in flight.
struct ThreadCopy {
  char* to;
  const char* from;
  int bytes;
  int source_bytes;
  bool landed;
};

enum class ThreadState : uint8_t { kRunnable, kWaiting, kFinished };

struct Thread {
  Fiber fiber;
  uint3 index{};
  int id = 0;  // Linear, within its block; also its actor in the clocks.
  int lane = 0;
  int warp = 0;
  ThreadState state = ThreadState::kFinished;

  // Why the thread waits: a barrier, a collective of its warp, or a predicate.
  int barrier = -1;
  bool in_collective = false;
  std::function<bool()> ready;
  WaitText wait;

  int barrier_result = 0;                // Vote of the last barrier it passed.
  bool fenced = false;                   // Has executed a fence: its atomics pass on what it did.
  Knowledge overheard;                   // What atomics told it since its last fence.
  std::vector<ThreadCopy> copies;        // In issue order.
  std::vector<std::size_t> copy_groups;  // Per committed group: the index into copies of its end.
  const void* code_address = nullptr;    // Where the kernel last called the library.
};

/// An operation that runs beside the threads.
struct AsyncOperation {
  std::function<void()> complete;
  const char* what = "";  // "a TMA load"; for messages.
  int thread = 0;         // Who started it.
  /// A block must not end before the operation. It would end if nothing waits for the operation.
  bool must_be_awaited = true;
};

class Engine;

/// Callbacks when a block begins and when one of its threads exits, for state that instructions
/// keep per block beside its threads.
struct Unit {
  void (*start_block)(Engine& engine);
  void (*thread_exits)(Engine& engine, const Thread& thread);
};

class Engine {
 public:
  static Engine& instance();

  /// Before the first launch.
  void add_unit(const Unit& unit) { units_.push_back(unit); }

  /// Runs the grid. @throws Violation, or what the kernel threw.
  void launch(const KernelCall& call);

  // ---- Threads and time. To be called on a fiber, inside a LibraryCall.

  Thread& current() { return *running_; }
  Thread& thread_at(int id) { return *threads_[static_cast<std::size_t>(id)]; }
  int num_threads() const { return num_threads_; }
  int num_live() const { return num_live_; }

  /// Lets the other threads run first.
  void yield();

  /// A point where a thread may be interrupted: sometimes yields under Schedule::kRandom.
  void maybe_yield();

  /// Waits until `ready()` holds. `ready` is called again after notify(), and when no thread can
  /// run.
  void block_until(std::function<bool()>&& ready, WaitText text);
  void notify() { ask_predicates_ = true; }

  /// Must be called at each access that may be part of a loop that waits for memory to change.
  void poll();
  void note_progress() { idle_yields_ = 0; }

  /// Waits until another thread calls wake().
  void sleep();
  void wake(Thread& thread);

  /// Starts an operation, which completes here and now, or later, as options().async says. Returns
  /// an id for complete_async(), which completes the operation unless that has happened.
  uint64_t start_async(AsyncOperation&& operation);
  void complete_async(uint64_t operation);

  uint64_t random(uint64_t bound) { return random_() % bound; }
  const Options& launch_options() const { return options_; }

  // ---- Violations. They end the launch: nothing after the call runs, and no destructors. So
  // `text()` makes the text, its temporaries are gone by then, and callers must hold nothing.

  template <typename Text>
  [[noreturn]] void fail(const Thread& thread, const Text& text) {
    if constexpr (std::is_invocable_v<Text>) {
      record_failure(thread, text(), thread.code_address);
    } else {
      record_failure(thread, text, thread.code_address);
    }
    leave();
  }

  // ---- Memory. Sizes in bytes; shared memory, device memory, or the thread's own.

  /// Checks an access by `thread`, and records it.
  void check_access(const Thread& thread, const void* pointer, std::size_t size, Access kind);

  /// `actor` (a thread or an agent) starts a write to `shared`, which nobody may touch until
  /// finish_write() says that its bytes are there. Reports name `thread`.
  void begin_write(const Thread& thread, int actor, void* shared, std::size_t size);
  void finish_write(int actor, void* shared, std::size_t size);

  /// The same for an asynchronous read: nobody may write the bytes until finish_read().
  void begin_read(const Thread& thread, int actor, const void* shared, std::size_t size);
  void finish_read(const void* shared, std::size_t size);

  /// The actor for a unit that writes beside the threads; these are reused in turn.
  int next_agent() { return kMaxThreads + (agent_++ % kNumAgents); }

  SharedMemory& shared() { return shared_; }
  Clocks& clocks() { return clocks_; }

  /// The thread makes an atomic or volatile access. In CUDA such an access orders nothing by
  /// itself. With a fence before it in the writing thread, and one after it in the reading thread,
  /// it orders what is around the fences.
  void order_by_flag(Thread& thread, const void* pointer);
  void order_by_fence(Thread& thread);

  BlockBarriers& barriers() { return barriers_; }
  Warp& warp_of(const Thread& thread) { return warps_[static_cast<std::size_t>(thread.warp)]; }

 private:
  Engine() = default;
  static void fiber_entry();

  void prepare(const KernelCall& call);
  void run_block(uint64_t linear_index);
  void start_threads();
  void finish_thread(Thread& thread);
  void finish_block();
  void check_knowledge_capacity();

  Thread* pick_next();
  void run_next(Thread& thread, bool leaving);
  void resume(Fiber& from, Thread& to, bool leaving);
  bool ask_predicates();
  bool complete_some_async();
  void complete(AsyncOperation&& operation);
  void forget_block();

  void record_failure(const Thread& thread, const std::string& text, const void* code_address);
  [[noreturn]] void fail_deadlock();
  [[noreturn]] void leave();
  std::string describe_thread(const Thread& thread) const;
  std::string describe_deadlock() const;
  const Thread& first_waiting() const;
  std::string describe_wait(const Thread& thread) const;
  void check_other_memory(const Thread& thread, const void* pointer, std::size_t size, Access kind);
  std::string describe_shared(const SharedFault& fault, std::size_t size, Access kind) const;
  std::string describe_owner(uintptr_t address) const;

  std::mutex launch_mutex_;
  KernelCall call_{};
  Options options_;
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<Thread>> threads_;
  int num_threads_ = 0;
  int num_live_ = 0;
  uint3 block_index_{};

  Fiber launcher_;
  Thread* running_ = nullptr;
  std::array<Thread*, kMaxThreads> queue_{};  // A ring.
  unsigned queue_head_ = 0;
  unsigned queue_size_ = 0;
  std::vector<Thread*> predicate_waiters_;
  bool ask_predicates_ = false;
  uint64_t idle_yields_ = 0;  // Yields since memory changed or a thread went to sleep.
  unsigned polls_ = 0;

  std::vector<std::pair<uint64_t, AsyncOperation>> operations_;
  std::deque<AsyncOperation> completing_;  // Owned by the engine, so that a violation leaks none.
  uint64_t next_operation_ = 1;

  std::vector<Unit> units_;

  SharedMemory shared_;
  Clocks clocks_;
  int agent_ = 0;
  std::unordered_map<const void*, Knowledge> flags_;
  BlockBarriers barriers_;
  std::vector<Warp> warps_;

  bool failed_ = false;
  const void* failed_address_ = nullptr;
  std::string failure_;
  std::exception_ptr exception_;
};

/// The thread whose kernel code runs now on this host thread; null in library code and outside
/// kernels.
extern constinit thread_local Thread* kernel_thread __attribute__((tls_model("initial-exec")));

/// Must be the first statement of every function that kernels call. Violation outside kernels.
class LibraryCall {
 public:
  __attribute__((always_inline)) LibraryCall()
      : thread_(enter(__builtin_return_address(0))), engine_(Engine::instance()) {}
  ~LibraryCall() { kernel_thread = &thread_; }
  LibraryCall(const LibraryCall&) = delete;
  LibraryCall& operator=(const LibraryCall&) = delete;

  Thread& thread() { return thread_; }
  Engine& engine() { return engine_; }

 private:
  static Thread& enter(const void* code_address);
  Thread& thread_;
  Engine& engine_;
};

/// " [file:line, from file:line]" of a code address and of the calls inlined there; "" if not
/// known.
std::string source_lines(const void* code_address);

}  // namespace simt::engine
