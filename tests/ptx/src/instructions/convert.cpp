// cvt (section 9.7.9.21): between integers, from and to floats, and to pairs of 16-bit floats.
//
// A value of any type is exact in a 64-bit integer or in a double. That leaves one rounding and the
// modifiers, in the manual's order. Frequent conversions have their own loops.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstring>
#include <limits>

#include "elementwise.h"
#include "half.h"
#include "instructions.h"

namespace ptxsim {
namespace {

struct IntegerType {
  u32 bits = 0;
  bool is_signed = false;

  /// The value in the low bits of a register.
  s64 value_of(u64 raw) const {
    const u32 unused = 64 - bits;
    return is_signed ? static_cast<s64>(raw << unused) >> unused
                     : static_cast<s64>((raw << unused) >> unused);
  }
  s64 least() const { return is_signed ? -(s64{1} << (bits - 2)) * 2 : 0; }
  u64 greatest() const { return ~u64{0} >> (64 - bits + (is_signed ? 1 : 0)); }
};
IntegerType integer_type(std::string_view name) {
  return {.bits = 8u * bytes_of_type(name), .is_signed = name[0] == 's'};
}

std::string_view to_type(const Decoder& decoder) {
  return decoder.word(decoder.instruction().words.size() - 2);
}

Rounding rounding_of(const Decoder& decoder) {
  const std::string_view name = decoder.word(1);
  if (name.starts_with("rna")) return Rounding::kNearestAway;
  if (name.starts_with("rz")) return Rounding::kZero;
  if (name.starts_with("rm")) return Rounding::kDown;
  if (name.starts_with("rp")) return Rounding::kUp;
  return Rounding::kNearestEven;
}
bool rounds_to_integer(const Decoder& decoder) {
  const std::string_view name = decoder.word(1);
  return name == "rni" || name == "rzi" || name == "rmi" || name == "rpi";
}

double round_to_integer(double value, Rounding rounding) {
  switch (rounding) {
    case Rounding::kZero:
      return std::trunc(value);
    case Rounding::kDown:
      return std::floor(value);
    case Rounding::kUp:
      return std::ceil(value);
    default:
      return std::nearbyint(value);
  }
}

// ---- Registers, which may be wider than an integer type ----------------------------------------

u64 load_raw(Warp& warp, Reg reg, u32 lane) {
  switch (reg.bytes) {
    case 2:
      return warp.lanes<u16>(reg)[lane];
    case 4:
      return warp.lanes<u32>(reg)[lane];
    default:
      return warp.lanes<u64>(reg)[lane];
  }
}
void store_raw(Warp& warp, Reg reg, u32 lane, u64 value) {
  switch (reg.bytes) {
    case 2:
      warp.lanes<u16>(reg)[lane] = static_cast<u16>(value);
      break;
    case 4:
      warp.lanes<u32>(reg)[lane] = static_cast<u32>(value);
      break;
    default:
      warp.lanes<u64>(reg)[lane] = value;
  }
}

/// Stores f(bits of `from`) to `to`, in each lane.
template <class F>
void execute_raw(Decoder& decoder, Reg to, Reg from, F f) {
  decoder.execute([=](Warp& warp, u32 lanes) {
    each_lane(lanes, [&](u32 lane) { store_raw(warp, to, lane, f(load_raw(warp, from, lane))); });
  });
}

// ---- Floats as doubles -------------------------------------------------------------------------

enum class FloatType : u8 { kF16, kBf16, kF32, kF64 };

FloatType float_type(std::string_view name) {
  if (name == "f16") return FloatType::kF16;
  if (name == "bf16") return FloatType::kBf16;
  return name == "f32" ? FloatType::kF32 : FloatType::kF64;
}

double double_of(FloatType type, u64 raw, bool flushes) {
  switch (type) {
    case FloatType::kF16:
      return f16_to_float(static_cast<u16>(raw));
    case FloatType::kBf16:
      return bf16_to_float(static_cast<u16>(raw));
    case FloatType::kF32: {
      const float value = std::bit_cast<float>(static_cast<u32>(raw));
      return flushes ? flush(value) : value;
    }
    default:
      return std::bit_cast<double>(raw);
  }
}

u64 bits_of(FloatType type, double value, Rounding rounding, bool flushes) {
  switch (type) {
    case FloatType::kF16:
      return round_to<kFormatF16>(value, rounding);
    case FloatType::kBf16:
      return round_to<kFormatBf16>(value, rounding);
    case FloatType::kF32: {
      const u32 bits = round_to<kFormatF32>(value, rounding);
      return flushes ? std::bit_cast<u32>(flush(std::bit_cast<float>(bits))) : bits;
    }
    default:
      return std::bit_cast<u64>(value);
  }
}

double saturate(double value) { return value > 0.0 ? std::min(value, 1.0) : 0.0; }
double relu(double value) { return value < 0.0 || value == 0.0 ? 0.0 : value; }

/// Rounds to the nearest double, or to odd if not exact.
double double_of_integer(s64 value, bool is_signed) {
  const bool is_negative = is_signed && value < 0;
  const u64 magnitude = is_negative ? u64{0} - static_cast<u64>(value) : static_cast<u64>(value);
  constexpr int kMantissa = 53;
  const int dropped = std::max(0, 64 - std::countl_zero(magnitude) - kMantissa);
  const u64 lost = magnitude & ((u64{1} << dropped) - 1);
  const u64 kept = (magnitude >> dropped) | (lost != 0 ? 1u : 0u);
  const double result = std::ldexp(static_cast<double>(kept), dropped);
  return is_negative ? -result : result;
}

}  // namespace

void decode_cvt_integers(Decoder& decoder) {
  decoder.expect_operands(2);
  const IntegerType to_integer = integer_type(to_type(decoder));
  const IntegerType from_integer = integer_type(decoder.last_word());
  const Reg from = decoder.read_relaxed(decoder.operand(1), static_cast<u8>(from_integer.bits / 8));
  const Reg to = decoder.write_relaxed(decoder.operand(0), static_cast<u8>(to_integer.bits / 8));
  const bool saturates = decoder.has("sat");
  const bool is_plain =
      !saturates && to.bytes * 8u == to_integer.bits && from.bytes * 8u == from_integer.bits;
  if (!is_plain) {
    return execute_raw(decoder, to, from, [=](u64 raw) {
      s64 value = from_integer.value_of(raw);
      const bool is_negative = from_integer.is_signed && value < 0;
      if (saturates && is_negative) {
        value = std::max(value, to_integer.least());
      } else if (saturates && static_cast<u64>(value) > to_integer.greatest()) {
        value = static_cast<s64>(to_integer.greatest());
      }
      return static_cast<u64>(to_integer.value_of(static_cast<u64>(value)));
    });
  }
  with_integer(decoder, decoder.last_word()[0] == 'b' ? "u32" : decoder.last_word(), [&](auto a) {
    using A = decltype(a);
    with_bits(decoder, to_type(decoder), [&](auto d) {
      using D = decltype(d);
      execute_elementwise<D, A>(
          decoder, to, {from}, [](A value) { return static_cast<D>(value); },
          std::make_index_sequence<1>());
    });
  });
}

void decode_cvt_to_integer(Decoder& decoder) {
  decoder.expect_operands(2);
  const std::string_view from_name = decoder.last_word();
  const IntegerType integer = integer_type(to_type(decoder));
  const FloatType type = float_type(from_name);
  const Reg from = decoder.read(1, bytes_of_type(from_name));
  const Reg to = decoder.write_relaxed(decoder.operand(0), static_cast<u8>(integer.bits / 8));
  const Rounding rounding = rounding_of(decoder);
  const bool flushes = decoder.has("ftz");
  const bool is_wide = type == FloatType::kF64 || integer.bits == 64;
  const u64 of_nan = is_wide ? u64{1} << (integer.bits - 1) : 0;
  const double end = std::ldexp(1.0, static_cast<int>(integer.bits) - (integer.is_signed ? 1 : 0));
  const auto least = static_cast<double>(integer.least());
  execute_raw(decoder, to, from, [=](u64 raw) {
    const double exact = double_of(type, raw, flushes);
    if (std::isnan(exact)) return static_cast<u64>(integer.value_of(of_nan));
    const double value = round_to_integer(exact, rounding);
    if (value >= end) return integer.greatest();
    if (value <= least) return static_cast<u64>(integer.least());
    return integer.is_signed ? static_cast<u64>(static_cast<s64>(value)) : static_cast<u64>(value);
  });
}

void decode_cvt_from_integer(Decoder& decoder) {
  decoder.expect_operands(2);
  const std::string_view to_name = to_type(decoder);
  const IntegerType integer = integer_type(decoder.last_word());
  const FloatType type = float_type(to_name);
  const Reg from = decoder.read_relaxed(decoder.operand(1), static_cast<u8>(integer.bits / 8));
  const Reg to = decoder.write(0, bytes_of_type(to_name));
  const Rounding rounding = rounding_of(decoder);
  const bool saturates = decoder.has("sat");
  if (type == FloatType::kF64) {
    return execute_raw(decoder, to, from, [=](u64 raw) {
      const s64 value = integer.value_of(raw);
      const double nearest = integer.is_signed ? static_cast<double>(value)
                                               : static_cast<double>(static_cast<u64>(value));
      return std::bit_cast<u64>(saturates ? saturate(nearest) : nearest);
    });
  }
  execute_raw(decoder, to, from, [=](u64 raw) {
    const double exact = double_of_integer(integer.value_of(raw), integer.is_signed);
    return bits_of(type, saturates ? saturate(exact) : exact, rounding, /*flushes=*/false);
  });
}

void decode_cvt_floats(Decoder& decoder) {
  const std::string_view to_name = to_type(decoder);
  const std::string_view from_name = decoder.last_word();
  const FloatType to_float = float_type(to_name);
  const FloatType from_float = float_type(from_name);
  const std::size_t num_modifiers = decoder.instruction().words.size() - 3;
  if (from_float == FloatType::kF32 && num_modifiers == 1 && decoder.has("rn")) {
    if (to_float == FloatType::kF16) return elementwise<u16, float>(decoder, float_to_f16);
    if (to_float == FloatType::kBf16) return elementwise<u16, float>(decoder, float_to_bf16);
  }
  if (to_float == FloatType::kF32 && num_modifiers == 0) {
    if (from_float == FloatType::kF16) return elementwise<float, u16>(decoder, f16_to_float);
    if (from_float == FloatType::kBf16) return elementwise<float, u16>(decoder, bf16_to_float);
  }
  decoder.expect_operands(2);
  const Reg from = decoder.read(1, bytes_of_type(from_name));
  const Reg to = decoder.write(0, bytes_of_type(to_name));
  const Rounding rounding = rounding_of(decoder);
  const bool is_integral = rounds_to_integer(decoder);
  const bool saturates = decoder.has("sat");
  const bool flushes = decoder.has("ftz");
  const bool has_relu = decoder.has("relu");
  execute_raw(decoder, to, from, [=](u64 raw) {
    double value = double_of(from_float, raw, flushes);
    if (is_integral) value = round_to_integer(value, rounding);
    if (saturates) value = saturate(value);
    if (has_relu) value = relu(value);
    return bits_of(to_float, value, rounding, flushes);
  });
}

/// Converts two floats to a pair: the first becomes the upper half.
void decode_cvt_pair(Decoder& decoder) {
  const bool is_f16 = to_type(decoder) == "f16x2";
  const bool has_relu = decoder.has("relu");
  if (decoder.has("rn") && !has_relu) {
    const auto join = [](u16 upper, u16 lower) { return u32{upper} << 16 | lower; };
    if (is_f16) {
      return elementwise<u32, float, float>(
          decoder, [=](float a, float b) { return join(float_to_f16(a), float_to_f16(b)); });
    }
    return elementwise<u32, float, float>(
        decoder, [=](float a, float b) { return join(float_to_bf16(a), float_to_bf16(b)); });
  }
  const Rounding rounding = rounding_of(decoder);
  const FloatType type = is_f16 ? FloatType::kF16 : FloatType::kBf16;
  const auto half = [=](float value) {
    return static_cast<u32>(
        bits_of(type, has_relu ? relu(value) : value, rounding, /*flushes=*/false));
  };
  elementwise<u32, float, float>(decoder,
                                 [=](float a, float b) { return half(a) << 16 | half(b); });
}

void decode_cvt_tf32(Decoder& decoder) {
  const Rounding rounding = rounding_of(decoder);
  const bool has_relu = decoder.has("relu");
  constexpr int kUnused = kFormatF32.mantissa_bits - kFormatTf32.mantissa_bits;
  elementwise<u32, float>(decoder, [=](float a) {
    return round_to<kFormatTf32>(has_relu ? relu(a) : a, rounding) << kUnused;
  });
}

}  // namespace ptxsim
