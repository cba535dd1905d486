// Fibers: see fiber.h.
// SPDX-License-Identifier: Apache-2.0
#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif

#if defined(SIMT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(SIMT_USES_UCONTEXT)
extern "C" void simt_switch_stack(void** from, void* to);
asm(R"(
.text
.type simt_switch_stack,@function
simt_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch_stack, .-simt_switch_stack
)");
#endif

namespace simt::engine {
namespace {

#if defined(SIMT_ASAN)
// The thread's own stack: only the sanitizer knows where it is, and says so at the first switch.
thread_local const void* own_stack_bottom = nullptr;
thread_local std::size_t own_stack_bytes = 0;
thread_local bool came_from_own_stack = false;
#endif

}  // namespace

Fiber::~Fiber() { release(); }

void Fiber::release() {
  if (stack_begin_ == 0) return;
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  munmap(reinterpret_cast<void*>(stack_begin_ - page), stack_bytes_ + page);
  stack_begin_ = 0;
  stack_bytes_ = 0;
}

void Fiber::reserve(std::size_t bytes) {
  if (stack_bytes_ >= bytes) return;
  release();
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  bytes = (bytes + page - 1) / page * page;
  void* memory = mmap(nullptr, bytes + page, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, page, PROT_NONE);
  stack_begin_ = reinterpret_cast<uintptr_t>(memory) + page;
  stack_bytes_ = bytes;
}

void Fiber::reset(void (*entry)(), unsigned color) {
  constexpr std::size_t kColorBytes = 320;
  constexpr std::size_t kPeriodBytes = 4096;
  const std::size_t skipped = color * kColorBytes % kPeriodBytes;
#if defined(SIMT_ASAN)
  // Frames that never returned left their redzones behind; a finished fiber has only those of
  // `entry`.
  const std::size_t bytes = clean_ ? kPeriodBytes + 2048 : stack_bytes_;
  __asan_unpoison_memory_region(reinterpret_cast<void*>(stack_begin_ + stack_bytes_ - bytes),
                                bytes);
  sanitizer_stack_ = nullptr;
#endif
  clean_ = false;
#if !defined(SIMT_USES_UCONTEXT)
  // Looks as if `entry` had been called: on entry the stack is 8 bytes off a multiple of 16, and
  // the return address is null, which ends backtraces.
  auto* top = reinterpret_cast<void**>(stack_begin_ + stack_bytes_ - skipped);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  stack_pointer_ = static_cast<void*>(top);
#else
  getcontext(&context_);
  context_.uc_stack.ss_sp = reinterpret_cast<void*>(stack_begin_);
  context_.uc_stack.ss_size = stack_bytes_ - skipped;
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
#endif
}

void Fiber::switch_to(Fiber& from, Fiber& to, bool leaving) {
  from.clean_ = leaving;
#if defined(SIMT_ASAN)
  const bool to_own_stack = to.stack_begin_ == 0;
  came_from_own_stack = from.stack_begin_ == 0;
  __sanitizer_start_switch_fiber(
      leaving ? nullptr : &from.sanitizer_stack_,
      to_own_stack ? own_stack_bottom : reinterpret_cast<const void*>(to.stack_begin_),
      to_own_stack ? own_stack_bytes : to.stack_bytes_);
#endif
#if !defined(SIMT_USES_UCONTEXT)
  simt_switch_stack(&from.stack_pointer_, to.stack_pointer_);
#else
  swapcontext(&from.context_, &to.context_);
#endif
#if defined(SIMT_ASAN)
  const void* bottom = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(from.sanitizer_stack_, &bottom, &bytes);
  if (came_from_own_stack) {
    own_stack_bottom = bottom;
    own_stack_bytes = bytes;
  }
#endif
}

void Fiber::entered() {
#if defined(SIMT_ASAN)
  const void* bottom = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
  if (came_from_own_stack) {
    own_stack_bottom = bottom;
    own_stack_bytes = bytes;
  }
#endif
}

}  // namespace simt::engine
