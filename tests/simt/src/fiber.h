// A fiber: a stack and a place to continue. On x86-64 a switch saves the callee-saved registers and
// nothing else (some 2 ns); elsewhere ucontext does it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__) || defined(SIMT_UCONTEXT)
#define SIMT_USES_UCONTEXT 1
#include <ucontext.h>
#endif

namespace simt::engine {

class Fiber {
 public:
  Fiber() = default;  // The fiber that is already running: a thread's own stack.
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Gives the fiber a stack of at least `bytes` above a guard page; keeps its stack if large
  /// enough.
  void reserve(std::size_t bytes);

  /// Makes the next switch to this fiber call `entry`, which must not return. What was on the stack
  /// is dropped, without destructors. Fibers of different `color` use different cache lines of
  /// their (equally aligned) stacks; otherwise a block's stacks evict each other.
  void reset(void (*entry)(), unsigned color);

  /// Continues `to`; returns when something switches back. `leaving`: nothing will, and `from` is
  /// in its entry function.
  static void switch_to(Fiber& from, Fiber& to, bool leaving);

  bool owns(uintptr_t address) const { return address - stack_begin_ < stack_bytes_; }

  /// Must be called first in `entry`.
  static void entered();

 private:
  void release();

  uintptr_t stack_begin_ = 0;  // 0: the thread's own stack.
  std::size_t stack_bytes_ = 0;
#if !defined(SIMT_USES_UCONTEXT)
  void* stack_pointer_ = nullptr;
#else
  ucontext_t context_;
#endif
  bool clean_ = true;                // No frames are left on the stack.
  void* sanitizer_stack_ = nullptr;  // AddressSanitizer's handle of a fiber that is not running.
};

}  // namespace simt::engine
