// Splits PTX text into names, numbers and punctuation, and knows the current line.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "types.h"

namespace ptxsim {

/// A number in the text, as the bits of an integer, of a float (0f3F800000), or of a double (0d...,
/// and decimals such as 1.5).
struct Number {
  enum class Kind : u8 { kInteger, kFloat, kDouble };
  Kind kind = Kind::kInteger;
  u64 bits = 0;
};

class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  /// The next character that is neither space nor comment; '\0' at the end.
  char peek();
  bool accept(char c);
  void expect(char c);
  /// Accepts this literal text: ".branchtargets".
  bool accept(std::string_view literal);

  /// Reads letters, digits, _, $ and %. Empty if there are none.
  std::string_view name();
  std::string_view need_name();
  /// Reads a name with dots and double colons: an opcode with its modifiers.
  std::string_view opcode();
  /// Accepts a single colon, which makes what came before a label.
  bool accept_label_colon();
  /// Reads .x, .y or .z directly after the name of a special register; otherwise empty.
  std::string_view component();
  bool at_number();
  Number number();
  s64 integer();

  void skip_line();
  void skip_past(char c);
  void skip_braces();

  struct Mark {
    std::size_t at = 0;
    u32 line = 1;
  };
  Mark mark();
  void return_to(Mark mark) { mark_ = mark; }
  std::string text_since(Mark mark) const;

  [[noreturn]] void fail(const std::string& what) const;

 private:
  void skip_blanks();
  void skip_comment(std::string_view end);
  char at(std::size_t ahead = 0) const;
  Number floating_bits(std::size_t digits, Number::Kind kind);

  std::string_view text_;
  Mark mark_;
};

}  // namespace ptxsim
