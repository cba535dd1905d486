// Atomic operations. One host thread runs all emulated threads, so plain operations do; the rest is
// what the checkers must know.
// SPDX-License-Identifier: Apache-2.0
#include <simt/atomics.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <type_traits>

#include "engine.h"

namespace simt {
namespace {

using engine::Access;
using engine::Engine;
using engine::LibraryCall;

template <typename T>
T applied(Atomic operation, T old, T operand, T compare) {
  if constexpr (std::is_integral_v<T>) {
    using Bits = std::make_unsigned_t<T>;  // Unsigned, so that it wraps.
    switch (operation) {
      case Atomic::kAdd:
        return static_cast<T>(static_cast<Bits>(old) + static_cast<Bits>(operand));
      case Atomic::kSub:
        return static_cast<T>(static_cast<Bits>(old) - static_cast<Bits>(operand));
      case Atomic::kMin:
        return std::min(old, operand);
      case Atomic::kMax:
        return std::max(old, operand);
      case Atomic::kAnd:
        return static_cast<T>(old & operand);
      case Atomic::kOr:
        return static_cast<T>(old | operand);
      case Atomic::kXor:
        return static_cast<T>(old ^ operand);
      case Atomic::kIncrement:
        return old >= operand ? T{0} : static_cast<T>(old + 1);
      case Atomic::kDecrement:
        return old == 0 || old > operand ? operand : static_cast<T>(old - 1);
      case Atomic::kCompareAndSwap:
        return old == compare ? operand : old;
      case Atomic::kExchange:
        return operand;
    }
  } else if (operation == Atomic::kAdd) {
    return old + operand;
  }
  return operand;
}

}  // namespace

template <typename T>
T atomic_update(Atomic operation, T* pointer, T operand, T compare) {
  LibraryCall call;
  Engine& engine = call.engine();
  engine.poll();
  if (reinterpret_cast<uintptr_t>(pointer) % sizeof(T) != 0) {
    engine.fail(call.thread(), "atomically updates an address that is not aligned");
  }
  engine.order_by_flag(call.thread(), pointer);
  engine.check_access(call.thread(), pointer, sizeof(T), Access::kAtomic);
  const T old = *pointer;
  *pointer = applied(operation, old, operand, compare);
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  if (std::bit_cast<Bits>(*pointer) != std::bit_cast<Bits>(old)) engine.note_progress();
  return old;
}

template int atomic_update(Atomic, int*, int, int);
template unsigned atomic_update(Atomic, unsigned*, unsigned, unsigned);
template long long atomic_update(Atomic, long long*, long long, long long);
template unsigned long long atomic_update(Atomic, unsigned long long*, unsigned long long,
                                          unsigned long long);
template float atomic_update(Atomic, float*, float, float);
template double atomic_update(Atomic, double*, double, double);

}  // namespace simt
