// Comparison and selection (sections 9.7.6 and 9.7.7): setp, set, selp, slct.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <functional>

#include "elementwise.h"
#include "half.h"
#include "instructions.h"

namespace ptxsim {
namespace {

// ---- Comparisons -------------------------------------------------------------------------------

template <class T>
T comparable(T value) {
  return value;
}
inline float comparable(F16 value) { return value.value(); }
inline float comparable(Bf16 value) { return value.value(); }

/// Compares two values; if one is NaN, the result is `kUnordered`. Has no branch, so that it
/// vectorises.
template <class Compare, bool kUnordered>
struct Holds {
  template <class T>
  bool operator()(T left, T right) const {
    const auto a = comparable(left);
    const auto b = comparable(right);
    const bool holds = Compare()(a, b);
    if constexpr (std::is_floating_point_v<decltype(a)>) {
      const bool is_unordered = (a != a) | (b != b);
      return kUnordered ? holds | is_unordered : holds & !is_unordered;
    }
    return holds;
  }
};
struct Always {
  template <class T>
  bool operator()(T, T) const {
    return true;
  }
};
struct Never {
  template <class T>
  bool operator()(T, T) const {
    return false;
  }
};

/// Calls f with the comparison that the modifier names.
template <class F>
void with_comparison(Decoder& decoder, std::string_view name, F f) {
  if (name == "eq") return f(Holds<std::equal_to<>, false>());
  if (name == "ne") return f(Holds<std::not_equal_to<>, false>());
  if (name == "lt" || name == "lo") return f(Holds<std::less<>, false>());
  if (name == "le" || name == "ls") return f(Holds<std::less_equal<>, false>());
  if (name == "gt" || name == "hi") return f(Holds<std::greater<>, false>());
  if (name == "ge" || name == "hs") return f(Holds<std::greater_equal<>, false>());
  if (name == "equ") return f(Holds<std::equal_to<>, true>());
  if (name == "neu") return f(Holds<std::not_equal_to<>, true>());
  if (name == "ltu") return f(Holds<std::less<>, true>());
  if (name == "leu") return f(Holds<std::less_equal<>, true>());
  if (name == "gtu") return f(Holds<std::greater<>, true>());
  if (name == "geu") return f(Holds<std::greater_equal<>, true>());
  if (name == "num") return f(Holds<Always, false>());
  if (name == "nan") return f(Holds<Never, true>());
  decoder.fail("not known: ." + std::string(name));
}

template <class F>
void with_comparable(Decoder& decoder, std::string_view type, F f) {
  if (type == "f32") return f(float{});
  if (type == "f64") return f(double{});
  if (type == "f16") return f(F16{});
  if (type == "bf16") return f(Bf16{});
  type[0] == 'b' ? with_bits(decoder, type, f) : with_integer(decoder, type, f);
}

/// The result of comparing operands 1 and 2 of type T, one bit per lane.
template <class T, class F>
std::function<u32(Warp&, u32)> compare_lanes(Decoder& decoder, F holds) {
  const std::array<Reg, 2> from = {decoder.read(1, sizeof(T)), decoder.read(2, sizeof(T))};
  return [=](Warp& warp, u32 lanes) {
    return predicate_of_lanes<T, T>(warp, lanes, from, holds, std::make_index_sequence<2>());
  };
}

std::function<u32(Warp&, u32)> decode_comparison(Decoder& decoder) {
  std::function<u32(Warp&, u32)> result;
  with_comparison(decoder, decoder.word(1), [&](auto holds) {
    with_comparable(decoder, decoder.last_word(), [&](auto t) {
      using T = decltype(t);
      if constexpr (std::is_same_v<T, float>) {
        if (decoder.has("ftz")) {
          result = compare_lanes<float>(
              decoder, [=](float a, float b) { return holds(flush(a), flush(b)); });
          return;
        }
      }
      result = compare_lanes<T>(decoder, holds);
    });
  });
  return result;
}

enum class Combine : u8 { kNone, kAnd, kOr, kXor };

Combine combination(const Decoder& decoder) {
  if (decoder.has("and")) return Combine::kAnd;
  if (decoder.has("or")) return Combine::kOr;
  return decoder.has("xor") ? Combine::kXor : Combine::kNone;
}

u32 combine(Combine how, u32 a, u32 b) {
  switch (how) {
    case Combine::kAnd:
      return a & b;
    case Combine::kOr:
      return a | b;
    case Combine::kXor:
      return a ^ b;
    default:
      return a;
  }
}

}  // namespace

void decode_setp(Decoder& decoder) {
  const Combine how = combination(decoder);
  decoder.expect_operands(how == Combine::kNone ? 3 : 4);
  const auto comparison = decode_comparison(decoder);
  const Predicate with = how == Combine::kNone ? Predicate{} : decoder.read_predicate(3);
  const Reg to = decoder.write(0, 0);
  const auto& others = decoder.operand(0).parts;  // For p|q: the q.
  const bool has_other = !others.empty();
  const Reg other = has_other ? decoder.write(others[0], 0) : Reg{};
  if (how == Combine::kNone && !has_other) {
    return decoder.execute([=](Warp& warp, u32 lanes) {
      set_bits(warp.predicate(to), lanes, comparison(warp, lanes));
    });
  }
  decoder.execute([=](Warp& warp, u32 lanes) {
    const u32 holds = comparison(warp, lanes);
    const u32 third = how == Combine::kNone ? 0 : with.of(warp);
    set_bits(warp.predicate(to), lanes, combine(how, holds, third));
    if (has_other) set_bits(warp.predicate(other), lanes, combine(how, ~holds, third));
  });
}

/// Like setp, but writes a register: all ones or 1.0 where the comparison holds.
void decode_set(Decoder& decoder) {
  decoder.expect_operands(3);
  const auto comparison = decode_comparison(decoder);
  const std::string_view type = decoder.word(decoder.instruction().words.size() - 2);
  const u32 yes = type == "f32" ? std::bit_cast<u32>(1.0f) : ~0u;
  const Reg to = decoder.write(0, 4);
  decoder.execute([=](Warp& warp, u32 lanes) {
    const u32 holds = comparison(warp, lanes);
    u32* d = warp.lanes<u32>(to);
    each_lane(lanes, [&](u32 lane) { d[lane] = ((holds >> lane) & 1u) != 0 ? yes : 0u; });
  });
}

void decode_selp(Decoder& decoder) {
  decoder.expect_operands(4);
  decoder.op().copies_undefined = true;
  with_bits(decoder, decoder.last_word(), [&](auto t) {
    using T = decltype(t);
    const Reg left = decoder.read(1, sizeof(T));
    const Reg right = decoder.read(2, sizeof(T));
    const Predicate chooses = decoder.read_predicate(3);
    decoder.op().selects = true;
    decoder.op().selector = chooses.reg;
    decoder.op().selector_negated = chooses.negated;
    const Reg to = decoder.write(0, sizeof(T));
    decoder.execute([=](Warp& warp, u32 lanes) {
      const T* a = warp.lanes<T>(left);
      const T* b = warp.lanes<T>(right);
      T* d = warp.lanes<T>(to);
      const u32 takes_a = chooses.of(warp);
      each_lane_apart(
          lanes, [=](u32 lane) { d[lane] = ((takes_a >> lane) & 1u) != 0 ? a[lane] : b[lane]; });
    });
  });
}

/// a where c >= 0, else b; if c is NaN, b.
void decode_slct(Decoder& decoder) {
  const auto& words = decoder.instruction().words;
  const bool by_float = decoder.last_word() == "f32";
  const bool flushes = decoder.has("ftz");
  with_bits(decoder, words[words.size() - 2], [&](auto t) {
    using T = decltype(t);
    if (by_float) {
      elementwise<T, T, T, float>(decoder, [flushes](T a, T b, float c) {
        return (flushes ? flush(c) : c) >= 0.0f ? a : b;
      });
    } else {
      elementwise<T, T, T, s32>(decoder, [](T a, T b, s32 c) { return c >= 0 ? a : b; });
    }
  });
}

}  // namespace ptxsim
