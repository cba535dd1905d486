// call (section 9.7.12.5) of functions that the system provides: vprintf and __assertfail.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "instructions/instructions.h"
#include "lanes.h"
#include "state.h"

namespace ptxsim {
namespace {

/// Reads from local memory, where parameters lie and addresses are the host's.
template <class T>
T parameter(const Warp& warp, const Address& address, u32 lane) {
  T value;
  std::memcpy(&value, reinterpret_cast<const void*>(address.of(warp, lane)), sizeof value);
  return value;
}

/// printf's packed arguments: each is at a multiple of its size.
class Arguments {
 public:
  explicit Arguments(u64 begin) : at_(begin) {}
  template <class T>
  T next() {
    at_ = (at_ + sizeof(T) - 1) / sizeof(T) * sizeof(T);
    T value;
    std::memcpy(&value, reinterpret_cast<const void*>(at_), sizeof value);
    at_ += sizeof(T);
    ++count_;
    return value;
  }
  int count() const { return count_; }

 private:
  u64 at_;
  int count_ = 0;
};

template <class... Values>
std::string formatted(const std::string& directive, Values... values) {
  char text[512];
  std::snprintf(text, sizeof text, directive.c_str(), values...);
  return text;
}

/// The text of one directive of a format, "%-8.3f", with its arguments.
std::string formatted_directive(const std::string& directive, Arguments& arguments) {
  const auto stars = std::count(directive.begin(), directive.end(), '*');
  int star[2] = {};
  for (long i = 0; i < stars && i < 2; ++i) star[i] = arguments.next<int>();
  const auto print = [&](auto value) {
    if (stars == 0) return formatted(directive, value);
    if (stars == 1) return formatted(directive, star[0], value);
    return formatted(directive, star[0], star[1], value);
  };
  const bool is_long = directive.find_first_of("lzjt") != std::string::npos;
  switch (directive.back()) {
    case 's':
      return print(reinterpret_cast<const char*>(arguments.next<u64>()));
    case 'p':
      return print(reinterpret_cast<const void*>(arguments.next<u64>()));
    case 'a':
    case 'A':
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
      return print(arguments.next<double>());
    default:
      return is_long ? print(arguments.next<s64>()) : print(arguments.next<s32>());
  }
}

/// Prints printf's text. @return the number of arguments, as vprintf does on the GPU.
int print(const char* format, u64 packed) {
  std::string text;
  Arguments arguments(packed);
  for (const char* at = format; *at != '\0';) {
    if (*at != '%') {
      text += *at++;
      continue;
    }
    if (at[1] == '%') {
      text += '%';
      at += 2;
      continue;
    }
    const std::size_t length = std::strcspn(at + 1, "diouxXcspaAeEfFgG");
    if (at[1 + length] == '\0') break;
    const std::string directive(at, length + 2);
    text += formatted_directive(directive, arguments);
    at += directive.size();
  }
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
  return arguments.count();
}

std::vector<Address> addresses_of(Decoder& decoder, const std::vector<Operand>& operands,
                                  std::size_t count) {
  if (operands.size() != count) decoder.fail(std::to_string(count) + " parameters expected");
  std::vector<Address> addresses;
  for (const Operand& operand : operands) addresses.push_back({operand.reg, operand.value});
  return addresses;
}

void decode_vprintf(Decoder& decoder) {
  const auto parameters = addresses_of(decoder, decoder.operand(0).parts, 2);
  decoder.expect_operands(2);
  const Address result = {decoder.operand(1).reg, decoder.operand(1).value};
  decoder.execute([=](Warp& warp, u32 lanes) {
    each_lane(lanes, [&](u32 lane) {
      const auto* const format =
          reinterpret_cast<const char*>(parameter<u64>(warp, parameters[0], lane));
      const int count = print(format, parameter<u64>(warp, parameters[1], lane));
      std::memcpy(reinterpret_cast<void*>(result.of(warp, lane)), &count, sizeof count);
    });
  });
}

// __assertfail(message, file, line, function, size of a character)
void decode_assertfail(Decoder& decoder) {
  const auto parameters = addresses_of(decoder, decoder.operand(0).parts, 5);
  decoder.expect_operands(1);
  decoder.execute([=](Warp& warp, u32 lanes) {
    const u32 lane = first_lane(lanes);
    const auto text = [&](std::size_t i) {
      return std::string(reinterpret_cast<const char*>(parameter<u64>(warp, parameters[i], lane)));
    };
    fail(warp,
         "assertion failed: " + text(0) + ", " + text(1) + ":" +
             std::to_string(parameter<u32>(warp, parameters[2], lane)) + ", " + text(3),
         lanes);
  });
}

}  // namespace

void decode_call(Decoder& decoder) {
  const Operand& callee = decoder.operand(0);
  if (callee.kind != Operand::Kind::kFunction) decoder.fail("a call of no function");
  if (callee.name == "vprintf") return decode_vprintf(decoder);
  if (callee.name == "__assertfail") return decode_assertfail(decoder);
  decoder.fail("call of '" + callee.name + "', which is not known here");
}

}  // namespace ptxsim
