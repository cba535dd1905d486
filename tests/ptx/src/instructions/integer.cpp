// Integer arithmetic (section 9.7.1), with and without carry (section 9.7.2). It wraps, because the
// library is compiled with -fwrapv.
// SPDX-License-Identifier: Apache-2.0
#include <limits>
#include <type_traits>

#include "elementwise.h"
#include "half.h"
#include "instructions.h"

namespace ptxsim {
namespace {

/// An integer type of twice T's bits.
template <class T>
struct Twice;
template <>
struct Twice<u16> {
  using Type = u32;
};
template <>
struct Twice<s16> {
  using Type = s32;
};
template <>
struct Twice<u32> {
  using Type = u64;
};
template <>
struct Twice<s32> {
  using Type = s64;
};
template <>
struct Twice<u64> {
  using Type = unsigned __int128;
};
template <>
struct Twice<s64> {
  using Type = __int128;
};
template <class T>
using Wide = typename Twice<T>::Type;

/// Applies f to each half of a pair.
template <class F>
auto on_halves(F f) {
  return [f](auto... pair) { return Pair{f(pair.low...), f(pair.high...)}; };
}

/// Decodes d, a, b of the instruction's type, including pairs of 16-bit integers.
template <class F>
void integer_binary(Decoder& decoder, F f) {
  const std::string_view type = decoder.last_word();
  if (type == "u16x2") return binary<Pair<u16>>(decoder, on_halves(f));
  if (type == "s16x2") return binary<Pair<s16>>(decoder, on_halves(f));
  with_integer(decoder, type, [&](auto t) { binary<decltype(t)>(decoder, f); });
}

struct MultiplyHigh {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>((Wide<T>{a} * Wide<T>{b}) >> (8 * sizeof(T)));
  }
};
struct MultiplyLow {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(Wide<T>{a} * Wide<T>{b});
  }
};
/// 48-bit products of 24-bit integers.
template <u32 kShift>
struct Multiply24 {
  template <class T>
  T operator()(T a, T b) const {
    constexpr int kUnused = 8;
    const Wide<T> x = static_cast<T>(a << kUnused) >> kUnused;
    const Wide<T> y = static_cast<T>(b << kUnused) >> kUnused;
    return static_cast<T>((x * y) >> kShift);
  }
};

struct Divide {
  template <class T>
  T operator()(T a, T b) const {
    if (b == 0) return static_cast<T>(~T{0});
    // Dividing the smallest value by -1 is an error on the host; here it wraps.
    if constexpr (std::is_signed_v<T>) {
      if (b == -1) return static_cast<T>(T{0} - a);
    }
    return static_cast<T>(a / b);
  }
};
struct Remainder {
  template <class T>
  T operator()(T a, T b) const {
    if (b == 0) return a;
    if constexpr (std::is_signed_v<T>) {
      if (b == -1) return 0;
    }
    return static_cast<T>(a % b);
  }
};

}  // namespace

void decode_add(Decoder& decoder) {
  integer_binary(decoder, [](auto a, auto b) { return static_cast<decltype(a)>(a + b); });
}
void decode_sub(Decoder& decoder) {
  integer_binary(decoder, [](auto a, auto b) { return static_cast<decltype(a)>(a - b); });
}
void decode_add_sat(Decoder& decoder) {
  const s64 sign = decoder.word(0) == "sub" ? -1 : 1;
  binary<s32>(decoder, [sign](s32 a, s32 b) {
    const s64 exact = s64{a} + sign * s64{b};
    return static_cast<s32>(
        std::clamp<s64>(exact, std::numeric_limits<s32>::min(), std::numeric_limits<s32>::max()));
  });
}

// ---- Products ----------------------------------------------------------------------------------

void decode_mul(Decoder& decoder) {
  const bool is_high = decoder.has("hi");
  with_integer(decoder, decoder.last_word(), [&](auto t) {
    using T = decltype(t);
    is_high ? binary<T>(decoder, MultiplyHigh()) : binary<T>(decoder, MultiplyLow());
  });
}

void decode_mul_wide(Decoder& decoder) {
  with_integer(decoder, decoder.last_word(), [&](auto t) {
    using T = decltype(t);
    if constexpr (sizeof(T) < 8) {
      elementwise<Wide<T>, T, T>(decoder, [](T a, T b) { return Wide<T>{a} * Wide<T>{b}; });
    }
  });
}

void decode_mul24(Decoder& decoder) {
  const bool is_high = decoder.has("hi");
  with_integer(decoder, decoder.last_word(), [&](auto t) {
    using T = decltype(t);
    if constexpr (sizeof(T) == 4) {
      is_high ? binary<T>(decoder, Multiply24<16>()) : binary<T>(decoder, Multiply24<0>());
    }
  });
}

void decode_mad(Decoder& decoder) {
  const bool is_high = decoder.has("hi");
  with_integer(decoder, decoder.last_word(), [&](auto t) {
    using T = decltype(t);
    if (is_high) {
      ternary<T>(decoder, [](T a, T b, T c) { return static_cast<T>(MultiplyHigh()(a, b) + c); });
    } else {
      ternary<T>(decoder, [](T a, T b, T c) { return static_cast<T>(MultiplyLow()(a, b) + c); });
    }
  });
}

void decode_mad_sat(Decoder& decoder) {
  ternary<s32>(decoder, [](s32 a, s32 b, s32 c) {
    const s64 exact = s64{MultiplyHigh()(a, b)} + s64{c};
    return static_cast<s32>(
        std::clamp<s64>(exact, std::numeric_limits<s32>::min(), std::numeric_limits<s32>::max()));
  });
}

void decode_mad_wide(Decoder& decoder) {
  with_integer(decoder, decoder.last_word(), [&](auto t) {
    using T = decltype(t);
    if constexpr (sizeof(T) < 8) {
      elementwise<Wide<T>, T, T, Wide<T>>(
          decoder, [](T a, T b, Wide<T> c) { return Wide<T>{a} * Wide<T>{b} + c; });
    }
  });
}

void decode_sad(Decoder& decoder) {
  with_integer(decoder, decoder.last_word(), [&](auto t) {
    using T = decltype(t);
    ternary<T>(decoder, [](T a, T b, T c) { return static_cast<T>(c + (a < b ? b - a : a - b)); });
  });
}

/// Adds four products of bytes to c.
void decode_dp4a(Decoder& decoder) {
  const bool a_is_signed = decoder.word(1) == "s32";
  const bool b_is_signed = decoder.word(2) == "s32";
  const auto byte = [](u32 value, u32 i, bool is_signed) {
    const u32 bits = (value >> (8 * i)) & 0xffu;
    return is_signed ? s32{static_cast<s8>(bits)} : static_cast<s32>(bits);
  };
  ternary<u32>(decoder, [=](u32 a, u32 b, u32 c) {
    for (u32 i = 0; i < 4; ++i) {
      c += static_cast<u32>(byte(a, i, a_is_signed) * byte(b, i, b_is_signed));
    }
    return c;
  });
}

// ---- Quotients, signs, order -------------------------------------------------------------------

void decode_div(Decoder& decoder) { integer_binary(decoder, Divide()); }
void decode_rem(Decoder& decoder) { integer_binary(decoder, Remainder()); }

void decode_min(Decoder& decoder) {
  integer_binary(decoder, [](auto a, auto b) { return b < a ? b : a; });
}
void decode_max(Decoder& decoder) {
  integer_binary(decoder, [](auto a, auto b) { return a < b ? b : a; });
}

void decode_abs(Decoder& decoder) {
  with_integer(decoder, decoder.last_word(), [&](auto t) {
    using T = decltype(t);
    unary<T>(decoder, [](T a) { return static_cast<T>(a < 0 ? T{0} - a : a); });
  });
}
void decode_neg(Decoder& decoder) {
  with_integer(decoder, decoder.last_word(), [&](auto t) {
    using T = decltype(t);
    unary<T>(decoder, [](T a) { return static_cast<T>(T{0} - a); });
  });
}

// ---- With a carry ------------------------------------------------------------------------------

namespace {

/// d = a + b + carry, or a - b - carry, with the carry out.
template <class T>
struct WithCarry {
  Reg to, carry;
  bool subtracts = false, takes = false, gives = false;

  /// `product` takes the place of a in each lane.
  template <class F>
  void run(Warp& warp, u32 lanes, const T* b, F product) const {
    T* d = warp.lanes<T>(to);
    u32& flags = warp.predicate(carry);
    each_lane(lanes, [&](u32 lane) {
      const T in = takes ? static_cast<T>((flags >> lane) & 1u) : T{0};
      const Wide<T> a = product(lane);
      const Wide<T> result = subtracts ? a - b[lane] - in : a + b[lane] + in;
      d[lane] = static_cast<T>(result);
      const auto out = static_cast<u32>((result >> (8 * sizeof(T))) & 1u);
      if (gives) set_bits(flags, 1u << lane, out << lane);
    });
  }
};

/// For both sizes that have a carry; signedness makes no difference to sums.
template <class F>
void with_carry_type(Decoder& decoder, F f) {
  if (bytes_of_type(decoder.last_word()) == 8) return f(u64{});
  f(u32{});
}

template <class T>
WithCarry<T> carry_operands(Decoder& decoder) {
  WithCarry<T> result{.to = decoder.write(0, sizeof(T)), .carry = decoder.carry()};
  result.subtracts = decoder.word(0).starts_with("sub");
  result.takes = decoder.word(0).ends_with('c');
  result.gives = decoder.has("cc");
  if (result.takes) decoder.op().reads.push_back(result.carry.number);
  if (result.gives) decoder.op().writes.push_back(result.carry.number);
  return result;
}

}  // namespace

void decode_add_carry(Decoder& decoder) {
  decoder.expect_operands(3);
  with_carry_type(decoder, [&](auto t) {
    using T = decltype(t);
    const Reg left = decoder.read(1, sizeof(T));
    const Reg right = decoder.read(2, sizeof(T));
    const auto sum = carry_operands<T>(decoder);
    decoder.execute([=](Warp& warp, u32 lanes) {
      const T* a = warp.lanes<T>(left);
      sum.run(warp, lanes, warp.lanes<T>(right), [=](u32 lane) { return a[lane]; });
    });
  });
}

void decode_mad_carry(Decoder& decoder) {
  decoder.expect_operands(4);
  const bool is_high = decoder.has("hi");
  with_integer(decoder, decoder.last_word(), [&](auto t) {
    using T = decltype(t);
    if constexpr (sizeof(T) >= 4) {
      using U = std::make_unsigned_t<T>;
      const Reg left = decoder.read(1, sizeof(T));
      const Reg right = decoder.read(2, sizeof(T));
      const Reg addend = decoder.read(3, sizeof(T));
      const auto sum = carry_operands<U>(decoder);
      decoder.execute([=](Warp& warp, u32 lanes) {
        const T* a = warp.lanes<T>(left);
        const T* b = warp.lanes<T>(right);
        sum.run(warp, lanes, warp.lanes<U>(addend), [=](u32 lane) {
          return static_cast<U>(is_high ? MultiplyHigh()(a[lane], b[lane])
                                        : MultiplyLow()(a[lane], b[lane]));
        });
      });
    }
  });
}

}  // namespace ptxsim
