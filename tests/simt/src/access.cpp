// Memory accesses of kernels: which memory an address belongs to, and whether a GPU could make the
// access.
// SPDX-License-Identifier: Apache-2.0
#include <link.h>

#include <algorithm>

#include "engine.h"

namespace simt::engine {
namespace {

std::string word_of(Access kind) {
  return is_read(kind) ? "reads " : is_write(kind) ? "writes " : "atomically updates ";
}

struct Range {
  uintptr_t begin;
  uintptr_t end;
};

int append_segments(dl_phdr_info* module, std::size_t, void* result) {
  auto& ranges = *static_cast<std::vector<Range>*>(result);
  for (int i = 0; i < module->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = module->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD) continue;
    const uintptr_t begin = module->dlpi_addr + segment.p_vaddr;
    ranges.push_back({begin, begin + segment.p_memsz});
  }
  return 0;
}

/// Returns whether the address is in the code or static data of the program or one of its
/// libraries.
bool in_program_image(uintptr_t address) {
  static thread_local std::vector<Range> segments;
  static thread_local Range last{0, 0};
  if (address >= last.begin && address < last.end) return true;
  const auto find = [address] {
    return std::find_if(segments.begin(), segments.end(), [address](const Range& range) {
      return address >= range.begin && address < range.end;
    });
  };
  auto found = find();
  if (found == segments.end()) {  // A library may have been loaded since.
    segments.clear();
    dl_iterate_phdr(&append_segments, &segments);
    found = find();
  }
  if (found == segments.end()) return false;
  last = *found;
  return true;
}

}  // namespace

void Engine::check_access(const Thread& thread, const void* pointer, std::size_t size,
                          Access kind) {
  if (is_write(kind)) note_progress();
  if (shared_.contains(pointer)) {
    const SharedFault fault =
        shared_.access(shared_.offset_of(pointer), size, kind, thread.id, clocks_);
    if (fault.fault == Fault::kNone) return;
    fail(thread, [&] { return word_of(kind) + describe_shared(fault, size, kind); });
  }
  if (thread.fiber.owns(reinterpret_cast<uintptr_t>(pointer)) || !options_.check_memory) return;
  check_other_memory(thread, pointer, size, kind);
}

void Engine::check_other_memory(const Thread& thread, const void* pointer, std::size_t size,
                                Access kind) {
  DeviceHeap& heap = DeviceHeap::instance();
  if (heap.contains(pointer)) {
    std::size_t bad = 0;
    const HeapFault fault = is_write(kind) ? heap.write(const_cast<void*>(pointer), size, &bad)
                                           : heap.read(pointer, size, &bad);
    if (fault == HeapFault::kNone || (fault == HeapFault::kUninitialized && !call_.instrumented)) {
      return;
    }
    fail(thread, [&] {
      return word_of(kind) + std::to_string(size) + " bytes of device memory, " +
             (fault == HeapFault::kOutOfBounds ? "out of bounds: " : "uninitialised: ") +
             heap.describe(static_cast<const char*>(pointer) + bad);
    });
  }
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  const auto arguments = reinterpret_cast<uintptr_t>(call_.arguments);
  if (address - arguments < call_.argument_bytes || in_program_image(address)) return;
  fail(thread, [&] {
    return word_of(kind) + std::to_string(size) + " bytes of " + describe_owner(address);
  });
}

std::string Engine::describe_owner(uintptr_t address) const {
  constexpr uintptr_t kFirstPage = 4096;
  if (address < kFirstPage) return "no memory: a null pointer";
  for (int id = 0; id < num_threads_; ++id) {
    if (threads_[static_cast<std::size_t>(id)]->fiber.owns(address)) {
      return "local memory of thread " + std::to_string(id);
    }
  }
  return "host memory";
}

void Engine::begin_write(const Thread& thread, int actor, void* shared, std::size_t size) {
  if (!shared_.contains(shared)) {
    fail(thread, "starts a copy whose target is not shared memory");
  }
  const SharedFault fault = shared_.begin_write(shared_.offset_of(shared), size, actor, clocks_);
  if (fault.fault == Fault::kNone) return;
  fail(thread,
       [&] { return "starts a copy that writes " + describe_shared(fault, size, Access::kWrite); });
}

void Engine::begin_read(const Thread& thread, int actor, const void* shared, std::size_t size) {
  if (!shared_.contains(shared)) fail(thread, "starts to read what is not shared memory");
  const SharedFault fault = shared_.begin_read(shared_.offset_of(shared), size, actor, clocks_);
  if (fault.fault != Fault::kNone) {
    fail(thread, [&] { return "starts to read " + describe_shared(fault, size, Access::kRead); });
  }
}

void Engine::finish_read(const void* shared, std::size_t size) {
  shared_.finish_read(shared_.offset_of(shared), size);
}

void Engine::finish_write(int actor, void* shared, std::size_t size) {
  shared_.finish_write(shared_.offset_of(shared), size, actor, clocks_);
}

// Also counts what the writer did between its fence and the flag as ordered: a race may be missed,
// none is invented.
void Engine::order_by_flag(Thread& thread, const void* pointer) {
  if (thread.fenced) clocks_.release(thread.id, flags_[pointer]);
  if (flags_.empty()) return;
  const auto flag = flags_.find(pointer);
  if (flag != flags_.end()) thread.overheard.learn(flag->second);
}

void Engine::order_by_fence(Thread& thread) {
  thread.fenced = true;
  clocks_.acquire(thread.id, thread.overheard);
}

}  // namespace simt::engine
