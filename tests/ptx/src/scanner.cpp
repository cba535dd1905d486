// SPDX-License-Identifier: Apache-2.0
#include "scanner.h"

#include <bit>
#include <charconv>

namespace ptxsim {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '$' ||
         c == '%';
}

}  // namespace

void Scanner::fail(const std::string& what) const {
  const std::size_t begin = std::min(mark_.at, text_.size());
  std::string_view rest = text_.substr(begin, 60);
  rest = rest.substr(0, rest.find('\n'));
  throw Error("PTX line " + std::to_string(mark_.line) + ": " + what + ", before \"" +
              std::string(rest) + '"');
}

char Scanner::at(std::size_t ahead) const {
  return mark_.at + ahead < text_.size() ? text_[mark_.at + ahead] : '\0';
}

void Scanner::skip_comment(std::string_view end) {
  const std::size_t found = text_.find(end, mark_.at + 2);
  const std::size_t stop = found == text_.npos ? text_.size() : found;
  for (; mark_.at < stop; ++mark_.at) mark_.line += text_[mark_.at] == '\n' ? 1 : 0;
  if (end == "*/") mark_.at = std::min(mark_.at + 2, text_.size());
}

void Scanner::skip_blanks() {
  while (mark_.at < text_.size()) {
    const char c = at();
    if (c == '/' && at(1) == '/') {
      skip_comment("\n");
    } else if (c == '/' && at(1) == '*') {
      skip_comment("*/");
    } else if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
      mark_.line += c == '\n' ? 1 : 0;
      ++mark_.at;
    } else {
      return;
    }
  }
}

char Scanner::peek() {
  skip_blanks();
  return at();
}

bool Scanner::accept(char c) {
  if (peek() != c || c == '\0') return false;
  ++mark_.at;
  return true;
}

void Scanner::expect(char c) {
  if (!accept(c)) fail(std::string("expected '") + c + "'");
}

bool Scanner::accept(std::string_view literal) {
  skip_blanks();
  if (text_.substr(mark_.at, literal.size()) != literal || is_name(at(literal.size()))) {
    return false;
  }
  mark_.at += literal.size();
  return true;
}

std::string_view Scanner::name() {
  skip_blanks();
  const std::size_t begin = mark_.at;
  while (is_name(at())) ++mark_.at;
  return text_.substr(begin, mark_.at - begin);
}

std::string_view Scanner::need_name() {
  const std::string_view found = name();
  if (found.empty()) fail("expected a name");
  return found;
}

std::string_view Scanner::opcode() {
  skip_blanks();
  const std::size_t begin = mark_.at;
  while (is_name(at()) || at() == '.' || at() == ':') ++mark_.at;
  if (mark_.at == begin) fail("expected an instruction");
  return text_.substr(begin, mark_.at - begin);
}

bool Scanner::accept_label_colon() {
  if (peek() != ':' || at(1) == ':') return false;
  ++mark_.at;
  return true;
}

std::string_view Scanner::component() {
  if (at() != '.' || at(1) < 'x' || at(1) > 'z' || is_name(at(2))) return {};
  mark_.at += 2;
  return text_.substr(mark_.at - 2, 2);
}

bool Scanner::at_number() {
  const char c = peek();
  return is_digit(c) || (c == '-' && is_digit(at(1)));
}

Number Scanner::floating_bits(std::size_t digits, Number::Kind kind) {
  mark_.at += 2;
  const std::string_view piece = text_.substr(mark_.at, digits);
  Number result{.kind = kind};
  const auto [end, error] =
      std::from_chars(piece.data(), piece.data() + piece.size(), result.bits, 16);
  if (error != std::errc() || end != piece.data() + digits) fail("expected hexadecimal digits");
  mark_.at += digits;
  return result;
}

Number Scanner::number() {
  const bool negative = accept('-');
  skip_blanks();
  if (!is_digit(at())) fail("expected a number");
  const char second = at() == '0' ? static_cast<char>(at(1) | 0x20) : '\0';
  if (second == 'f' || second == 'd') {
    if (negative) fail("a sign before the bits of a number");
    return second == 'f' ? floating_bits(/*digits=*/8, Number::Kind::kFloat)
                         : floating_bits(/*digits=*/16, Number::Kind::kDouble);
  }
  const char* begin = text_.data() + mark_.at;
  const char* end = text_.data() + text_.size();
  const bool is_prefixed = second == 'x' || second == 'b';
  const bool is_octal = !is_prefixed && at() == '0' && is_digit(at(1));
  const int base = second == 'x' ? 16 : second == 'b' ? 2 : is_octal ? 8 : 10;
  Number result;
  const auto parsed = std::from_chars(begin + (is_prefixed ? 2 : 0), end, result.bits, base);
  if (parsed.ec != std::errc()) fail("expected a number");
  const bool is_decimal = base == 10 && parsed.ptr < end &&
                          (*parsed.ptr == 'e' || *parsed.ptr == 'E' ||
                           (*parsed.ptr == '.' && parsed.ptr + 1 < end && is_digit(parsed.ptr[1])));
  if (is_decimal) {
    double value = 0.0;
    const auto real = std::from_chars(begin, end, value);
    mark_.at += static_cast<std::size_t>(real.ptr - begin);
    return {Number::Kind::kDouble, std::bit_cast<u64>(negative ? -value : value)};
  }
  mark_.at += static_cast<std::size_t>(parsed.ptr - begin);
  if (at() == 'U') ++mark_.at;
  if (is_name(at())) fail("a number that goes on as a name");
  if (negative) result.bits = u64{0} - result.bits;
  return result;
}

s64 Scanner::integer() {
  const Number result = number();
  if (result.kind != Number::Kind::kInteger) fail("expected an integer");
  return static_cast<s64>(result.bits);
}

void Scanner::skip_line() {
  while (mark_.at < text_.size() && at() != '\n') ++mark_.at;
}

void Scanner::skip_past(char c) {
  while (peek() != c) {
    if (peek() == '\0') fail(std::string("expected '") + c + "'");
    ++mark_.at;
  }
  ++mark_.at;
}

void Scanner::skip_braces() {
  expect('{');
  for (int depth = 1; depth > 0; ++mark_.at) {
    const char c = peek();
    if (c == '\0') fail("expected '}'");
    depth += c == '{' ? 1 : c == '}' ? -1 : 0;
  }
}

Scanner::Mark Scanner::mark() {
  skip_blanks();
  return mark_;
}

std::string Scanner::text_since(Mark mark) const {
  return std::string(text_.substr(mark.at, mark_.at - mark.at));
}

}  // namespace ptxsim
