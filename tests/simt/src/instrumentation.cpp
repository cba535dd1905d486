// The functions that instrumented kernels call at every access to memory.
//
// Kernels are compiled, but not linked, with -fsanitize=thread: the compiler calls __tsan_read4()
// and similar functions at every memory access that is not provably private to the function. Here
// these names are ours, and lead to the engine's checks. They are set as assembler names, because
// compilers know these functions and insist on their types.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "engine.h"

namespace simt::engine {
namespace {

// kernel_thread is null while the engine works: the linker may have picked an instrumented copy of
// a standard library function that the engine also uses.
class Pause {
 public:
  Pause(Thread& thread, const void* code_address) : thread_(thread) {
    kernel_thread = nullptr;
    thread.code_address = code_address;
  }
  ~Pause() { kernel_thread = &thread_; }
  Pause(const Pause&) = delete;
  Pause& operator=(const Pause&) = delete;

 private:
  Thread& thread_;
};

// `aligned`: the compiler relied on the type's alignment, and so would a GPU.
inline void check(const void* pointer, std::size_t size, Access kind, bool aligned,
                  const void* code_address) {
  Thread* thread = kernel_thread;
  if (thread == nullptr) return;  // Host code of the same source file, or the engine itself.
  const Pause pause(*thread, code_address);
  Engine& engine = Engine::instance();
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  if (aligned && address % size != 0 && !thread->fiber.owns(address)) {
    engine.fail(*thread, [&] {
      return std::string(is_read(kind) ? "reads " : "writes ") + std::to_string(size) +
             " bytes at an address that is not a multiple of " + std::to_string(size);
    });
  }
  engine.check_access(*thread, pointer, size, kind);
}

/// Volatile and atomic accesses, which may be part of a loop that waits for memory to change.
void check_flag(const volatile void* pointer, std::size_t size, Access kind,
                const void* code_address) {
  Thread* thread = kernel_thread;
  if (thread == nullptr) return;
  const Pause pause(*thread, code_address);
  Engine& engine = Engine::instance();
  const void* plain = const_cast<const void*>(pointer);
  engine.poll();
  engine.order_by_flag(*thread, plain);
  engine.check_access(*thread, plain, size, kind);
}

}  // namespace
}  // namespace simt::engine

using simt::engine::Access;
using simt::engine::check;
using simt::engine::check_flag;
using simt::engine::Engine;
using simt::engine::kernel_thread;
using simt::engine::Thread;

#define SIMT_CALLER __builtin_return_address(0)

/// Defines a function of the given assembler name.
#define SIMT_HOOK(symbol, result, name, ...)           \
  extern "C" result name(__VA_ARGS__) __asm__(symbol); \
  extern "C" result name(__VA_ARGS__)

#define SIMT_ACCESSES(size)                                                                        \
  SIMT_HOOK("__tsan_read" #size, void, simt_read##size, void* p) {                                 \
    check(p, size, Access::kRead, true, SIMT_CALLER);                                              \
  }                                                                                                \
  SIMT_HOOK("__tsan_write" #size, void, simt_write##size, void* p) {                               \
    check(p, size, Access::kWrite, true, SIMT_CALLER);                                             \
  }                                                                                                \
  SIMT_HOOK("__tsan_unaligned_read" #size, void, simt_unaligned_read##size, void* p) {             \
    check(p, size, Access::kRead, false, SIMT_CALLER);                                             \
  }                                                                                                \
  SIMT_HOOK("__tsan_unaligned_write" #size, void, simt_unaligned_write##size, void* p) {           \
    check(p, size, Access::kWrite, false, SIMT_CALLER);                                            \
  }                                                                                                \
  SIMT_HOOK("__tsan_read_write" #size, void, simt_read_write##size, void* p) {                     \
    check(p, size, Access::kRead, true, SIMT_CALLER);                                              \
    check(p, size, Access::kWrite, true, SIMT_CALLER);                                             \
  }                                                                                                \
  SIMT_HOOK("__tsan_unaligned_read_write" #size, void, simt_unaligned_read_write##size, void* p) { \
    check(p, size, Access::kRead, false, SIMT_CALLER);                                             \
    check(p, size, Access::kWrite, false, SIMT_CALLER);                                            \
  }                                                                                                \
  SIMT_HOOK("__tsan_volatile_read" #size, void, simt_volatile_read##size, void* p) {               \
    check_flag(p, size, Access::kVolatileRead, SIMT_CALLER);                                       \
  }                                                                                                \
  SIMT_HOOK("__tsan_volatile_write" #size, void, simt_volatile_write##size, void* p) {             \
    check_flag(p, size, Access::kVolatileWrite, SIMT_CALLER);                                      \
  }                                                                                                \
  SIMT_HOOK("__tsan_unaligned_volatile_read" #size, void, simt_unaligned_volatile_read##size,      \
            void* p) {                                                                             \
    check_flag(p, size, Access::kVolatileRead, SIMT_CALLER);                                       \
  }                                                                                                \
  SIMT_HOOK("__tsan_unaligned_volatile_write" #size, void, simt_unaligned_volatile_write##size,    \
            void* p) {                                                                             \
    check_flag(p, size, Access::kVolatileWrite, SIMT_CALLER);                                      \
  }

SIMT_ACCESSES(1)
SIMT_ACCESSES(2)
SIMT_ACCESSES(4)
SIMT_ACCESSES(8)
SIMT_ACCESSES(16)

SIMT_HOOK("__tsan_read_range", void, simt_read_range, void* p, std::size_t size) {
  if (size > 0) check(p, size, Access::kRead, false, SIMT_CALLER);
}
SIMT_HOOK("__tsan_write_range", void, simt_write_range, void* p, std::size_t size) {
  if (size > 0) check(p, size, Access::kWrite, false, SIMT_CALLER);
}
SIMT_HOOK("__tsan_vptr_read", void, simt_vptr_read, void* p) {
  check(p, sizeof(void*), Access::kRead, false, SIMT_CALLER);
}
SIMT_HOOK("__tsan_vptr_update", void, simt_vptr_update, void* p, void*) {
  check(p, sizeof(void*), Access::kWrite, false, SIMT_CALLER);
}
SIMT_HOOK("__tsan_init", void, simt_init, void) {}
SIMT_HOOK("__tsan_func_entry", void, simt_func_entry, void*) {}
SIMT_HOOK("__tsan_func_exit", void, simt_func_exit, void*) {}

// See instrumented.h.
extern "C" {
void* simt_memcpy(void* to, const void* from, std::size_t bytes);
void* simt_memmove(void* to, const void* from, std::size_t bytes);
void* simt_memset(void* to, int value, std::size_t bytes);
}

void* simt_memcpy(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return to;
  check(from, bytes, Access::kRead, false, SIMT_CALLER);
  check(to, bytes, Access::kWrite, false, SIMT_CALLER);
  return std::memcpy(to, from, bytes);
}

void* simt_memmove(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return to;
  check(from, bytes, Access::kRead, false, SIMT_CALLER);
  check(to, bytes, Access::kWrite, false, SIMT_CALLER);
  return std::memmove(to, from, bytes);
}

void* simt_memset(void* to, int value, std::size_t bytes) {
  if (bytes == 0) return to;
  check(to, bytes, Access::kWrite, false, SIMT_CALLER);
  return std::memset(to, value, bytes);
}

// C++ atomics, which the compiler also turns into calls. Callers that are not kernels are host
// code, whose other threads are real, so the operations stay atomic.
#define SIMT_ATOMIC_UPDATE(bits, operation)                                                     \
  SIMT_HOOK("__tsan_atomic" #bits "_" #operation, uint##bits##_t, simt_atomic##bits##operation, \
            volatile uint##bits##_t* p, uint##bits##_t value, int) {                            \
    check_flag(p, bits / 8, Access::kAtomic, SIMT_CALLER);                                      \
    return __atomic_##operation(p, value, __ATOMIC_SEQ_CST);                                    \
  }
#define SIMT_ATOMIC_EXCHANGE(bits, strength, weak)                                             \
  SIMT_HOOK("__tsan_atomic" #bits "_compare_exchange_" #strength, bool,                        \
            simt_atomic##bits##strength, volatile uint##bits##_t* p, uint##bits##_t* expected, \
            uint##bits##_t value, int, int) {                                                  \
    check_flag(p, bits / 8, Access::kAtomic, SIMT_CALLER);                                     \
    return __atomic_compare_exchange_n(p, expected, value, weak, __ATOMIC_SEQ_CST,             \
                                       __ATOMIC_SEQ_CST);                                      \
  }
#define SIMT_ATOMICS(bits)                                                                  \
  SIMT_HOOK("__tsan_atomic" #bits "_load", uint##bits##_t, simt_atomic##bits##load,         \
            const volatile uint##bits##_t* p, int) {                                        \
    check_flag(p, bits / 8, Access::kVolatileRead, SIMT_CALLER);                            \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                            \
  }                                                                                         \
  SIMT_HOOK("__tsan_atomic" #bits "_store", void, simt_atomic##bits##store,                 \
            volatile uint##bits##_t* p, uint##bits##_t value, int) {                        \
    check_flag(p, bits / 8, Access::kVolatileWrite, SIMT_CALLER);                           \
    __atomic_store_n(p, value, __ATOMIC_SEQ_CST);                                           \
  }                                                                                         \
  SIMT_HOOK("__tsan_atomic" #bits "_exchange", uint##bits##_t, simt_atomic##bits##exchange, \
            volatile uint##bits##_t* p, uint##bits##_t value, int) {                        \
    check_flag(p, bits / 8, Access::kAtomic, SIMT_CALLER);                                  \
    return __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST);                                 \
  }                                                                                         \
  SIMT_ATOMIC_UPDATE(bits, fetch_add)                                                       \
  SIMT_ATOMIC_UPDATE(bits, fetch_sub)                                                       \
  SIMT_ATOMIC_UPDATE(bits, fetch_and)                                                       \
  SIMT_ATOMIC_UPDATE(bits, fetch_or)                                                        \
  SIMT_ATOMIC_UPDATE(bits, fetch_xor)                                                       \
  SIMT_ATOMIC_UPDATE(bits, fetch_nand)                                                      \
  SIMT_ATOMIC_EXCHANGE(bits, strong, false)                                                 \
  SIMT_ATOMIC_EXCHANGE(bits, weak, true)

SIMT_ATOMICS(8)
SIMT_ATOMICS(16)
SIMT_ATOMICS(32)
SIMT_ATOMICS(64)

SIMT_HOOK("__tsan_atomic_thread_fence", void, simt_atomic_thread_fence, int) {
  Thread* thread = kernel_thread;
  if (thread != nullptr) {
    const simt::engine::Pause pause(*thread, SIMT_CALLER);
    Engine::instance().order_by_fence(*thread);
  }
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
SIMT_HOOK("__tsan_atomic_signal_fence", void, simt_atomic_signal_fence, int) {
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
}
