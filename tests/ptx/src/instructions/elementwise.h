// Instructions that compute each lane's result from that lane's operands alone: most instructions.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <bit>
#include <string_view>
#include <utility>

#include "decoder.h"
#include "lanes.h"
#include "state.h"

namespace ptxsim {

/// Like each_lane, for lanes that do not see each other's results: the compiler may load several
/// values before it stores one.
template <class F>
[[gnu::always_inline]] inline void each_lane_apart(u32 lanes, F f) {
  if (lanes == kAllLanes) {
#pragma GCC ivdep
    for (u32 lane = 0; lane < kWarpSize; ++lane) f(lane);
  } else {
    for (; lanes != 0; lanes &= lanes - 1) f(static_cast<u32>(std::countr_zero(lanes)));
  }
}

/// Computes to = f(from...) in each lane.
template <class D, class... A, class F, std::size_t... I>
void execute_elementwise(Decoder& decoder, Reg to, std::array<Reg, sizeof...(A)> from, F f,
                         std::index_sequence<I...>) {
  decoder.execute([=](Warp& warp, u32 lanes) {
    D* d = warp.lanes<D>(to);
    const auto run = [=](const A*... a) {
      each_lane_apart(lanes, [=](u32 lane) { d[lane] = f(a[lane]...); });
    };
    run(warp.lanes<A>(from[I])...);
  });
}

/// Decodes an instruction d, a, b... of types D, A...; it computes d = f(a, b...).
template <class D, class... A, class F>
void elementwise(Decoder& decoder, F f) {
  decoder.expect_operands(1 + sizeof...(A));
  std::size_t i = 0;
  const std::array<Reg, sizeof...(A)> from = {decoder.read(++i, sizeof(A))...};
  const Reg to = decoder.write(0, sizeof(D));
  execute_elementwise<D, A...>(decoder, to, from, f, std::index_sequence_for<A...>());
}

/// Decodes instructions d, a; d, a, b; d, a, b, c with operands of one type.
template <class T, class F>
void unary(Decoder& decoder, F f) {
  elementwise<T, T>(decoder, f);
}
template <class T, class F>
void binary(Decoder& decoder, F f) {
  elementwise<T, T, T>(decoder, f);
}
template <class T, class F>
void ternary(Decoder& decoder, F f) {
  elementwise<T, T, T, T>(decoder, f);
}

/// 1 << lane. It is a table because not every host can shift a vector by a vector.
inline constexpr auto kLaneBits = [] {
  std::array<u32, kWarpSize> bits = {};
  for (u32 lane = 0; lane < kWarpSize; ++lane) bits[lane] = 1u << lane;
  return bits;
}();

/// Computes d (a predicate) = f(a, b...) in each lane.
template <class... A, class F, std::size_t... I>
u32 predicate_of_lanes(Warp& warp, u32 lanes, const std::array<Reg, sizeof...(A)>& from, F f,
                       std::index_sequence<I...>) {
  u32 result = 0;
  const auto run = [&](const A*... a) {
    each_lane_apart(lanes, [&](u32 lane) {
      const u32 mask = u32{0} - u32{f(a[lane]...)};
      result |= mask & kLaneBits[lane];
    });
  };
  run(warp.lanes<A>(from[I])...);
  return result;
}

/// Calls f with a value of the named type. The table never passes on a type that is not listed.
template <class F>
void with_integer(Decoder& decoder, std::string_view type, F f) {
  if (type == "u16") return f(u16{});
  if (type == "u32") return f(u32{});
  if (type == "u64") return f(u64{});
  if (type == "s16") return f(s16{});
  if (type == "s32") return f(s32{});
  if (type == "s64") return f(s64{});
  decoder.fail("not known for this type");
}
template <class F>
void with_bits(Decoder& decoder, std::string_view type, F f) {
  switch (bytes_of_type(type)) {
    case 2:
      return f(u16{});
    case 4:
      return f(u32{});
    case 8:
      return f(u64{});
    default:
      decoder.fail("not known for this type");
  }
}

}  // namespace ptxsim
