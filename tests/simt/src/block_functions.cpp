// What kernels call: block barriers, shared memory, cp.async, fences, traps.
// SPDX-License-Identifier: Apache-2.0
#include <simt/device.h>

#include <cstring>

#include "engine.h"

namespace simt {

using engine::BlockBarriers;
using engine::Engine;
using engine::LibraryCall;
using engine::SharedMemory;

int block_barrier(BarrierVote vote, bool predicate) {
  LibraryCall call;
  return call.engine().barriers().arrive(call.engine(), call.thread(), 0,
                                         BlockBarriers::kAllThreads, vote, predicate,
                                         /*arrive_only=*/false);
}

namespace {

int arrive_at_named(LibraryCall& call, int id, int threads, BarrierVote vote, bool predicate,
                    bool arrive_only) {
  Engine& engine = call.engine();
  if (id < 0 || id >= BlockBarriers::kNumBarriers || threads <= 0 || threads % 32 != 0 ||
      threads > (engine.num_threads() + 31) / 32 * 32) {
    engine.fail(call.thread(), [&] {
      return "uses named barrier " + std::to_string(id) + " for " + std::to_string(threads) +
             " threads: ids are 0 to 15, threads a multiple of 32 up to the block's";
    });
  }
  return engine.barriers().arrive(engine, call.thread(), id, threads, vote, predicate, arrive_only);
}

}  // namespace

void named_barrier_sync(int id, int threads) {
  LibraryCall call;
  arrive_at_named(call, id, threads, BarrierVote::kNone, false, /*arrive_only=*/false);
}

void named_barrier_arrive(int id, int threads) {
  LibraryCall call;
  arrive_at_named(call, id, threads, BarrierVote::kNone, false, /*arrive_only=*/true);
}

bool named_barrier_or(int id, int threads, bool predicate) {
  LibraryCall call;
  return arrive_at_named(call, id, threads, BarrierVote::kOr, predicate, /*arrive_only=*/false) !=
         0;
}

void memory_fence() {
  LibraryCall call;
  call.engine().order_by_fence(call.thread());
  call.engine().maybe_yield();
}

void pause() {
  LibraryCall call;
  call.engine().yield();
}

int64_t clock_ticks() {
  static int64_t ticks = 0;  // Only promised to grow.
  return ++ticks;
}

void trap() {
  LibraryCall call;
  call.engine().fail(call.thread(), "traps");
}

void* dynamic_shared(std::size_t bytes, std::size_t alignment) {
  LibraryCall call;
  SharedMemory& shared = call.engine().shared();
  constexpr std::size_t kMaxAlignment = 1024;
  if (bytes > shared.bytes() || alignment > kMaxAlignment) {
    call.engine().fail(call.thread(), [&] {
      return "asks for " + std::to_string(bytes) + " bytes of shared memory, aligned to " +
             std::to_string(alignment) + ": the launch has " + std::to_string(shared.bytes()) +
             ", aligned to 1024";
    });
  }
  return shared.base();
}

uint32_t shared_address(const void* pointer) {
  LibraryCall call;
  SharedMemory& shared = call.engine().shared();
  if (!shared.contains(pointer)) {
    call.engine().fail(call.thread(), "takes the shared address of what is not in shared memory");
  }
  return SharedMemory::kFirstAddress + static_cast<uint32_t>(shared.offset_of(pointer));
}

void* shared_pointer(uint32_t address) {
  LibraryCall call;
  if (address - SharedMemory::kFirstAddress >= SharedMemory::kWindowBytes) {
    call.engine().fail(call.thread(),
                       [&] { return "uses shared address " + std::to_string(address); });
  }
  return call.engine().shared().base() + (address - SharedMemory::kFirstAddress);
}

}  // namespace simt
