// cp.async: copies that a thread issues and waits for itself. The target counts as in flight until
// its thread has waited, however early the bytes land: a thread may rely on nothing else.
// SPDX-License-Identifier: Apache-2.0
#include <simt/instructions.h>

#include <cstring>

#include "engine.h"

namespace simt {
namespace {

using engine::Access;
using engine::Engine;
using engine::LibraryCall;
using engine::Thread;
using engine::ThreadCopy;

// The source is read when the copy lands, not when it is issued.
void land(Engine& engine, const Thread& thread, ThreadCopy& copy) {
  const auto source_bytes = static_cast<std::size_t>(copy.source_bytes);
  if (source_bytes > 0) {
    engine.check_access(thread, copy.from, source_bytes, Access::kRead);
    std::memcpy(copy.to, copy.from, source_bytes);
  }
  std::memset(copy.to + copy.source_bytes, 0, static_cast<std::size_t>(copy.bytes) - source_bytes);
  copy.landed = true;
}

void land_some(Engine& engine, Thread& thread) {
  if (engine.launch_options().async != AsyncCopies::kRandom) return;
  for (ThreadCopy& copy : thread.copies) {
    if (!copy.landed && engine.random(4) == 0) land(engine, thread, copy);
  }
}

void finish_first(Engine& engine, Thread& thread, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    ThreadCopy& copy = thread.copies[i];
    if (!copy.landed) land(engine, thread, copy);
    engine.finish_write(thread.id, copy.to, static_cast<std::size_t>(copy.bytes));
  }
  thread.copies.erase(thread.copies.begin(),
                      thread.copies.begin() + static_cast<std::ptrdiff_t>(count));
}

void check_arguments(Engine& engine, const Thread& thread, const ThreadCopy& copy) {
  const auto misaligned = [&](const void* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % static_cast<unsigned>(copy.bytes) != 0;
  };
  if ((copy.bytes != 4 && copy.bytes != 8 && copy.bytes != 16) || copy.source_bytes < 0 ||
      copy.source_bytes > copy.bytes) {
    engine.fail(thread, [&] {
      return "issues a cp.async of " + std::to_string(copy.bytes) + " bytes with " +
             std::to_string(copy.source_bytes) + " source bytes";
    });
  }
  if (misaligned(copy.to) || misaligned(copy.from)) {
    engine.fail(thread, [&] {
      return "issues a cp.async whose " + std::string(misaligned(copy.to) ? "shared" : "source") +
             " address is not a multiple of " + std::to_string(copy.bytes);
    });
  }
  if (copy.source_bytes > 0 && !engine::DeviceHeap::instance().contains(copy.from)) {
    engine.fail(thread, "issues a cp.async whose source is not device memory");
  }
}

}  // namespace

void cp_async(void* shared, const void* global, int bytes, int source_bytes) {
  LibraryCall call;
  Engine& engine = call.engine();
  Thread& thread = call.thread();
  ThreadCopy copy{static_cast<char*>(shared), static_cast<const char*>(global), bytes, source_bytes,
                  /*landed=*/false};
  check_arguments(engine, thread, copy);
  engine.begin_write(thread, thread.id, shared, static_cast<std::size_t>(bytes));
  land_some(engine, thread);
  if (engine.launch_options().async == AsyncCopies::kEager) land(engine, thread, copy);
  thread.copies.push_back(copy);
}

void cp_async_commit() {
  LibraryCall call;
  call.thread().copy_groups.push_back(call.thread().copies.size());
  call.engine().maybe_yield();
}

void cp_async_wait(int pending) {
  LibraryCall call;
  Engine& engine = call.engine();
  Thread& thread = call.thread();
  engine.maybe_yield();
  if (pending < 0) engine.fail(thread, "waits for cp.async with a negative number of groups left");
  auto& groups = thread.copy_groups;
  if (groups.size() <= static_cast<std::size_t>(pending)) return;
  const std::size_t done = groups.size() - static_cast<std::size_t>(pending);
  const std::size_t num_copies = groups[done - 1];
  finish_first(engine, thread, num_copies);
  groups.erase(groups.begin(), groups.begin() + static_cast<std::ptrdiff_t>(done));
  for (std::size_t& end : groups) end -= num_copies;
  land_some(engine, thread);
}

void cp_async_wait_all() {
  LibraryCall call;
  call.engine().maybe_yield();
  finish_first(call.engine(), call.thread(), call.thread().copies.size());
  call.thread().copy_groups.clear();
}

}  // namespace simt
