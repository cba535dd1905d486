// atom, red (sections 9.7.13.5, 9.7.13.6). Lanes execute one after another. Order and scope are not
// modelled: everyone sees every operation at once.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cstring>
#include <mutex>

#include "half.h"
#include "instructions/instructions.h"
#include "instructions/memory_operands.h"
#include "lanes.h"
#include "memory.h"
#include "state.h"

namespace ptxsim {
namespace {

/// Needed because blocks may run on several host threads.
std::mutex atomic_mutex;

struct Atomic {
  Address address;
  Space space = Space::kGeneric;
  Reg result, b, c;
};

template <class Value, class Operation>
void run_atomic(Warp& warp, u32 lanes, const Atomic& atomic, bool has_c, bool has_result,
                Operation operation) {
  u64 addresses[kWarpSize] = {};
  u8* pointers[kWarpSize];
  each_lane(lanes, [&](u32 lane) { addresses[lane] = atomic.address.of(warp, lane); });
  resolve(warp, lanes, atomic.space, addresses, sizeof(Value), pointers);
  const Value* const b = warp.lanes<Value>(atomic.b);
  const Value* const c = has_c ? warp.lanes<Value>(atomic.c) : b;
  Value* const result = warp.lanes<Value>(atomic.result);
  {
    const std::lock_guard lock(atomic_mutex);
    each_lane(lanes, [&](u32 lane) {
      Value before;
      std::memcpy(&before, pointers[lane], sizeof before);
      const Value after = operation(before, b[lane], c[lane]);
      std::memcpy(pointers[lane], &after, sizeof after);
      if (has_result) result[lane] = before;
    });
  }
  if (options().check) note_generic_writes(warp, lanes, pointers, sizeof(Value));
  ++warp.cluster->events;
}

// ---- Operations on what is in memory, b and c --------------------------------------------------

constexpr auto kAdd = [](auto x, auto b, auto) { return static_cast<decltype(x)>(x + b); };
constexpr auto kMin = [](auto x, auto b, auto) { return std::min(x, b); };
constexpr auto kMax = [](auto x, auto b, auto) { return std::max(x, b); };
constexpr auto kAnd = [](auto x, auto b, auto) { return static_cast<decltype(x)>(x & b); };
constexpr auto kOr = [](auto x, auto b, auto) { return static_cast<decltype(x)>(x | b); };
constexpr auto kXor = [](auto x, auto b, auto) { return static_cast<decltype(x)>(x ^ b); };
constexpr auto kExchange = [](auto, auto b, auto) { return b; };
constexpr auto kCompareAndSwap = [](auto x, auto b, auto c) { return x == b ? c : x; };
constexpr auto kIncrement = [](u32 x, u32 b, u32) { return x >= b ? 0 : x + 1; };
constexpr auto kDecrement = [](u32 x, u32 b, u32) { return x == 0 || x > b ? b : x - 1; };

/// 16-bit floats, rounded once.
template <class Float>
constexpr auto kAddShort = [](u16 x, u16 b, u16) {
  const double sum = sum_to_odd(Float{x}.value(), Float{b}.value());
  return static_cast<u16>(round_to<Float::kFormat>(sum, Rounding::kNearestEven));
};
/// In global memory, subnormals are flushed.
constexpr auto kAddFlushed = [](float x, float b, float) { return flush(flush(x) + flush(b)); };

/// Applies the operation to both halves of 32 bits.
template <class Operation>
auto pairwise(Operation operation) {
  return [=](u32 x, u32 b, u32) {
    const auto half = [&](int shift) {
      return u32{operation(static_cast<u16>(x >> shift), static_cast<u16>(b >> shift), u16{0})}
             << shift;
    };
    return half(0) | half(16);
  };
}

class AtomicDecoder {
 public:
  AtomicDecoder(Decoder& decoder, bool has_result)
      : decoder_(decoder), has_result_(has_result), has_c_(decoder.has("cas")) {
    const std::size_t first = has_result ? 1 : 0;
    expect_operands_and_policy(decoder, first + (has_c_ ? 3 : 2));
    const u8 bytes = bytes_of_type(decoder.last_word());
    atomic_.space = space_of(decoder);
    atomic_.address = decoder.address(first);
    atomic_.b = decoder.read(first + 1, bytes);
    if (has_c_) atomic_.c = decoder.read(first + 2, bytes);
    atomic_.result = has_result ? decoder.write(0, bytes) : decoder.scratch(bytes);
  }

  template <class Value, class Operation>
  void execute(Operation operation) {
    const Atomic atomic = atomic_;
    const bool has_c = has_c_;
    const bool has_result = has_result_;
    decoder_.execute([=](Warp& warp, u32 lanes) {
      run_atomic<Value>(warp, lanes, atomic, has_c, has_result, operation);
    });
  }

  void execute_float_add() {
    const Atomic atomic = atomic_;
    const bool has_result = has_result_;
    decoder_.execute([=](Warp& warp, u32 lanes) {
      const u8* const at = reinterpret_cast<u8*>(atomic.address.of(warp, first_lane(lanes)));
      if (atomic.space == Space::kShared || block_of(warp, at) != nullptr) {
        run_atomic<float>(warp, lanes, atomic, /*has_c=*/false, has_result, kAdd);
      } else {
        run_atomic<float>(warp, lanes, atomic, /*has_c=*/false, has_result, kAddFlushed);
      }
    });
  }

  /// An operation on 32 or 64 bits; floating-point numbers have their own.
  template <class Operation>
  void execute_bits(Operation operation) {
    bytes_of_type(decoder_.last_word()) == 4 ? execute<u32>(operation) : execute<u64>(operation);
  }
  template <class Operation>
  void execute_ordered(Operation operation) {
    if (decoder_.last_word().front() != 's') return execute_bits(operation);
    bytes_of_type(decoder_.last_word()) == 4 ? execute<s32>(operation) : execute<s64>(operation);
  }

 private:
  Decoder& decoder_;
  Atomic atomic_;
  bool has_result_, has_c_;
};

void execute_add(AtomicDecoder& atomic, std::string_view type) {
  if (type == "f32") return atomic.execute_float_add();
  if (type == "f64") return atomic.execute<double>(kAdd);
  if (type == "f16") return atomic.execute<u16>(kAddShort<F16>);
  if (type == "bf16") return atomic.execute<u16>(kAddShort<Bf16>);
  if (type == "f16x2") return atomic.execute<u32>(pairwise(kAddShort<F16>));
  if (type == "bf16x2") return atomic.execute<u32>(pairwise(kAddShort<Bf16>));
  atomic.execute_bits(kAdd);
}

void decode_atomic(Decoder& decoder, bool has_result) {
  AtomicDecoder atomic(decoder, has_result);
  const std::string_view type = decoder.last_word();
  if (decoder.has("add")) return execute_add(atomic, type);
  if (decoder.has("min")) return atomic.execute_ordered(kMin);
  if (decoder.has("max")) return atomic.execute_ordered(kMax);
  if (decoder.has("and")) return atomic.execute_bits(kAnd);
  if (decoder.has("or")) return atomic.execute_bits(kOr);
  if (decoder.has("xor")) return atomic.execute_bits(kXor);
  if (decoder.has("exch")) return atomic.execute_bits(kExchange);
  if (decoder.has("inc")) return atomic.execute<u32>(kIncrement);
  if (decoder.has("dec")) return atomic.execute<u32>(kDecrement);
  if (type == "b16") return atomic.execute<u16>(kCompareAndSwap);
  atomic.execute_bits(kCompareAndSwap);
}

}  // namespace

void decode_atom(Decoder& decoder) { decode_atomic(decoder, /*has_result=*/true); }
void decode_red(Decoder& decoder) { decode_atomic(decoder, /*has_result=*/false); }

}  // namespace ptxsim
