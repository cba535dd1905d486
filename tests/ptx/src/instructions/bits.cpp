// Bit operations on integers (section 9.7.1), logic and shifts (section 9.7.8).
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <type_traits>

#include "elementwise.h"
#include "instructions.h"

namespace ptxsim {
namespace {

template <class T>
constexpr u32 kBits = 8 * sizeof(T);

/// A mask of the low `count` bits.
template <class T>
T low_bits(u32 count) {
  return count >= kBits<T> ? static_cast<T>(~T{0}) : static_cast<T>((T{1} << count) - 1);
}

template <class T>
T extract_field(T a, u32 position, u32 length) {
  using U = std::make_unsigned_t<T>;
  position &= 0xffu;
  length &= 0xffu;
  if (length == 0) return 0;
  const U value = position >= kBits<T> ? U{0} : static_cast<U>(static_cast<U>(a) >> position);
  const U mask = low_bits<U>(length);
  if constexpr (std::is_signed_v<T>) {
    const u32 sign_at = std::min(position + length - 1, kBits<T> - 1);
    const bool is_negative = ((static_cast<U>(a) >> sign_at) & 1u) != 0;
    // Bits above those of `a` repeat its sign.
    const U present = position >= kBits<T> ? U{0} : low_bits<U>(kBits<T> - position);
    const U kept = static_cast<U>(mask & present);
    return static_cast<T>(is_negative ? (value & kept) | static_cast<U>(~kept) : value & kept);
  } else {
    return static_cast<T>(value & mask);
  }
}

template <class T>
T insert_field(T a, T b, u32 position, u32 length) {
  position &= 0xffu;
  length &= 0xffu;
  if (position >= kBits<T>) return b;
  const T mask = static_cast<T>(low_bits<T>(length) << position);
  return static_cast<T>((b & ~mask) | (static_cast<T>(a << position) & mask));
}

/// Position of the highest bit that differs from the sign, or its distance from the top.
template <class T>
u32 find_highest(T a, bool as_shift) {
  using U = std::make_unsigned_t<T>;
  U value = static_cast<U>(a);
  if constexpr (std::is_signed_v<T>) {
    if (a < 0) value = static_cast<U>(~value);
  }
  if (value == 0) return ~0u;
  const auto zeros = static_cast<u32>(std::countl_zero(value));
  return as_shift ? zeros : kBits<T> - 1 - zeros;
}

u32 reverse_bits(u32 a) {
  a = ((a >> 1) & 0x55555555u) | ((a & 0x55555555u) << 1);
  a = ((a >> 2) & 0x33333333u) | ((a & 0x33333333u) << 2);
  a = ((a >> 4) & 0x0f0f0f0fu) | ((a & 0x0f0f0f0fu) << 4);
  return __builtin_bswap32(a);
}

template <class F>
void bits_binary(Decoder& decoder, F f) {
  with_bits(decoder, decoder.last_word(), [&](auto t) { binary<decltype(t)>(decoder, f); });
}

/// Logic on predicates: computes all lanes at once.
template <class F>
void predicate_binary(Decoder& decoder, F f) {
  decoder.expect_operands(3);
  const Predicate a = decoder.read_predicate(1);
  const Predicate b = decoder.read_predicate(2);
  const Reg to = decoder.write(0, 0);
  decoder.execute([=](Warp& warp, u32 lanes) {
    set_bits(warp.predicate(to), lanes, f(a.of(warp), b.of(warp)));
  });
}

struct And {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a & b);
  }
};
struct Or {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a | b);
  }
};
struct Xor {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a ^ b);
  }
};

template <class F>
void decode_logic(Decoder& decoder, F f) {
  decoder.last_word() == "pred" ? predicate_binary(decoder, f) : bits_binary(decoder, f);
}

}  // namespace

// ---- Logic -------------------------------------------------------------------------------------

void decode_and(Decoder& decoder) { decode_logic(decoder, And()); }
void decode_or(Decoder& decoder) { decode_logic(decoder, Or()); }
void decode_xor(Decoder& decoder) { decode_logic(decoder, Xor()); }

void decode_not(Decoder& decoder) {
  if (decoder.last_word() != "pred") {
    return with_bits(decoder, decoder.last_word(), [&](auto t) {
      using T = decltype(t);
      unary<T>(decoder, [](T a) { return static_cast<T>(~a); });
    });
  }
  decoder.expect_operands(2);
  const Predicate from = decoder.read_predicate(1);
  const Reg to = decoder.write(0, 0);
  decoder.execute(
      [=](Warp& warp, u32 lanes) { set_bits(warp.predicate(to), lanes, ~from.of(warp)); });
}

void decode_cnot(Decoder& decoder) {
  with_bits(decoder, decoder.last_word(), [&](auto t) {
    using T = decltype(t);
    unary<T>(decoder, [](T a) { return static_cast<T>(a == 0 ? 1 : 0); });
  });
}

void decode_lop3(Decoder& decoder) {
  decoder.expect_operands(5);
  const std::array<Reg, 3> from = {decoder.read(1, 4), decoder.read(2, 4), decoder.read(3, 4)};
  const Reg to = decoder.write(0, 4);
  const s64 given = decoder.immediate(4);
  if (given < 0 || given > 0xff) decoder.fail("the table has 8 bits");
  const auto table = static_cast<u32>(given);
  const auto f = [table](u32 a, u32 b, u32 c) {
    u32 result = 0;
    for (u32 i = 0; i < 8; ++i) {
      const u32 chosen = u32{0} - ((table >> i) & 1u);
      result |=
          chosen & ((i & 4u) != 0 ? a : ~a) & ((i & 2u) != 0 ? b : ~b) & ((i & 1u) != 0 ? c : ~c);
    }
    return result;
  };
  execute_elementwise<u32, u32, u32, u32>(decoder, to, from, f, std::make_index_sequence<3>());
}

// ---- Shifts ------------------------------------------------------------------------------------

void decode_shl(Decoder& decoder) {
  with_bits(decoder, decoder.last_word(), [&](auto t) {
    using T = decltype(t);
    elementwise<T, T, u32>(decoder, [](T a, u32 b) {
      return b >= kBits<T> ? T{0} : static_cast<T>(a << (b % kBits<T>));
    });
  });
}

void decode_shr(Decoder& decoder) {
  const auto shift = [&](auto t) {
    using T = decltype(t);
    elementwise<T, T, u32>(decoder, [](T a, u32 b) {
      if (std::is_signed_v<T>) return static_cast<T>(a >> std::min(b, kBits<T> - 1));
      return b >= kBits<T> ? T{0} : static_cast<T>(a >> (b % kBits<T>));
    });
  };
  const std::string_view type = decoder.last_word();
  type[0] == 'b' ? with_bits(decoder, type, shift) : with_integer(decoder, type, shift);
}

/// A funnel shift of two registers, b above a.
void decode_shf(Decoder& decoder) {
  const bool is_left = decoder.word(1) == "l";
  const bool wraps = decoder.word(2) == "wrap";
  ternary<u32>(decoder, [=](u32 a, u32 b, u32 c) {
    const u32 count = wraps ? c & 31u : std::min(c, 32u);
    const u64 both = u64{b} << 32 | a;
    return static_cast<u32>(is_left ? (both << count) >> 32 : both >> count);
  });
}

void decode_prmt(Decoder& decoder) {
  ternary<u32>(decoder, [](u32 a, u32 b, u32 selector) {
    const u64 bytes = u64{b} << 32 | a;
    u32 result = 0;
    for (u32 i = 0; i < 4; ++i) {
      const u32 choice = (selector >> (4 * i)) & 0xfu;
      const u32 value = static_cast<u32>(bytes >> (8 * (choice & 7u))) & 0xffu;
      const u32 sign = (value & 0x80u) != 0 ? 0xffu : 0u;
      result |= ((choice & 8u) != 0 ? sign : value) << (8 * i);
    }
    return result;
  });
}

// ---- Fields and counts -------------------------------------------------------------------------

void decode_bfe(Decoder& decoder) {
  with_integer(decoder, decoder.last_word(), [&](auto t) {
    using T = decltype(t);
    elementwise<T, T, u32, u32>(
        decoder, [](T a, u32 position, u32 length) { return extract_field(a, position, length); });
  });
}

void decode_bfi(Decoder& decoder) {
  with_bits(decoder, decoder.last_word(), [&](auto t) {
    using T = decltype(t);
    elementwise<T, T, T, u32, u32>(decoder, [](T a, T b, u32 position, u32 length) {
      return insert_field(a, b, position, length);
    });
  });
}

void decode_bfind(Decoder& decoder) {
  const bool as_shift = decoder.has("shiftamt");
  with_integer(decoder, decoder.last_word(), [&](auto t) {
    using T = decltype(t);
    elementwise<u32, T>(decoder, [as_shift](T a) { return find_highest(a, as_shift); });
  });
}

void decode_bmsk(Decoder& decoder) {
  const bool wraps = decoder.has("wrap");
  binary<u32>(decoder, [wraps](u32 a, u32 b) {
    const u32 position = wraps ? a & 31u : a;
    const u32 length = wraps ? b & 31u : b;
    return position >= 32 ? 0u : low_bits<u32>(length) << position;
  });
}

void decode_szext(Decoder& decoder) {
  const bool wraps = decoder.has("wrap");
  const bool is_signed = decoder.last_word() == "s32";
  binary<u32>(decoder, [=](u32 a, u32 b) {
    const u32 length = wraps ? b & 31u : b;
    if (length == 0) return 0u;
    if (length >= 32) return a;
    const u32 mask = low_bits<u32>(length);
    const bool is_negative = is_signed && ((a >> (length - 1)) & 1u) != 0;
    return is_negative ? a | ~mask : a & mask;
  });
}

void decode_brev(Decoder& decoder) {
  if (bytes_of_type(decoder.last_word()) == 4) return unary<u32>(decoder, reverse_bits);
  unary<u64>(decoder, [](u64 a) {
    return u64{reverse_bits(static_cast<u32>(a))} << 32 | reverse_bits(static_cast<u32>(a >> 32));
  });
}

void decode_clz(Decoder& decoder) {
  with_bits(decoder, decoder.last_word(), [&](auto t) {
    using T = decltype(t);
    elementwise<u32, T>(decoder, [](T a) { return static_cast<u32>(std::countl_zero(a)); });
  });
}

void decode_popc(Decoder& decoder) {
  with_bits(decoder, decoder.last_word(), [&](auto t) {
    using T = decltype(t);
    elementwise<u32, T>(decoder, [](T a) { return static_cast<u32>(std::popcount(a)); });
  });
}

}  // namespace ptxsim
