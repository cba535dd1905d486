// Runs an instruction on many values at once, and compares each thread's result with the manual's
// definition, as the test computes it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <initializer_list>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "ptx.h"
#include "run_ptx.h"
#include "test.h"

namespace ptxsim::test {

/// The limits of the types' ranges, and values in the middle.
inline const Values kSpecialIntegers = {0,
                                        1,
                                        2,
                                        7,
                                        0x7f,
                                        0x80,
                                        0x7fff,
                                        0x8000,
                                        0xffff,
                                        0x7fffffff,
                                        0x80000000,
                                        0xffffffff,
                                        0x7fffffffffffffff,
                                        0x8000000000000000,
                                        ~u64{0}};

/// An instruction and the types of its registers: {"add.s32", "b32", {"b32", "b32"}}. `operands` is
/// the text after the opcode; empty: %d, %a, %b, %c, %e.
struct Instructed {
  std::string opcode;
  std::string to;
  std::vector<std::string> from;
  std::string operands = {};
};

inline std::string hex(u64 value) {
  std::ostringstream text;
  text << "0x" << std::hex << value;
  return text.str();
}

/// "b32" for 32.
inline std::string untyped(int bits) { return std::string("b").append(std::to_string(bits)); }

/// Converts from %in or to %out, which have 64 bits.
inline std::string narrowed(const std::string& type, const std::string& to,
                            const std::string& from) {
  if (type == "pred") return "setp.ne.u64 " + to + ", " + from + ", 0;\n";
  const int bytes = bytes_of_type(type);
  if (bytes == 8) return "mov.b64 " + to + ", " + from + ";\n";
  return std::string(bytes == 2 ? "cvt.u16.u64 " : "cvt.u32.u64 ") + to + ", " + from + ";\n";
}
inline std::string widened(const std::string& type, const std::string& from) {
  if (type == "pred") return "selp.b64 %out0, 1, 0, " + from + ";\n";
  const int bytes = bytes_of_type(type);
  if (bytes == 8) return "mov.b64 %out0, " + from + ";\n";
  return std::string(bytes == 2 ? "cvt.u64.u16 " : "cvt.u64.u32 ") + "%out0, " + from + ";\n";
}

/// Each of `rows` is a thread's inputs. Up to 1024 threads run at a time.
inline Values run_rows(const Instructed& instructed, const std::vector<Values>& rows) {
  constexpr std::size_t kMaxThreads = 1024;
  std::string body = ".reg ." + instructed.to + " %d;\n";
  std::string operands = "%d";
  for (std::size_t i = 0; i < instructed.from.size(); ++i) {
    const std::string name = std::string("%") + "abcefg"[i];
    body += ".reg ." + instructed.from[i] + " " + name + ";\n";
    body += narrowed(instructed.from[i], name, "%in" + std::to_string(i));
    operands += ", " + name;
  }
  if (!instructed.operands.empty()) operands = instructed.operands;
  body += instructed.opcode + " " + operands + ";\n" + widened(instructed.to, "%d");
  Values results;
  for (std::size_t begin = 0; begin < rows.size(); begin += kMaxThreads) {
    const std::size_t end = std::min(begin + kMaxThreads, rows.size());
    Program program{.body = body};
    program.block.x = static_cast<u32>(end - begin);
    program.inputs.resize(instructed.from.size());
    for (std::size_t i = 0; i < instructed.from.size(); ++i) {
      for (std::size_t row = begin; row < end; ++row) program.inputs[i].push_back(rows[row][i]);
    }
    const Values part = run_ptx(program)[0];
    results.insert(results.end(), part.begin(), part.end());
  }
  return results;
}

/// The expected result for a thread's inputs, already truncated to their types; it is truncated to
/// `to`.
using Expected = std::function<u64(const Values& inputs)>;

inline u64 cut(const std::string& type, u64 value) {
  if (type == "pred") return value != 0 ? 1 : 0;
  const int bytes = bytes_of_type(type);
  return bytes >= 8 ? value : value & ((u64{1} << (8 * bytes)) - 1);
}

inline void check_rows(const Instructed& instructed, std::vector<Values> rows,
                       const Expected& expected) {
  for (Values& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) row[i] = cut(instructed.from[i], row[i]);
  }
  Values results;
  const std::string error = error_of([&] { results = run_rows(instructed, rows); });
  CHECK(error.empty(), instructed.opcode, error);
  for (std::size_t i = 0; i < results.size(); ++i) {
    const u64 wanted = cut(instructed.to, expected(rows[i]));
    std::string inputs;
    if (results[i] != wanted) {
      for (const u64 input : rows[i]) inputs.append(" ").append(hex(input));
    }
    CHECK(results[i] == wanted, instructed.opcode, inputs, hex(results[i]), hex(wanted));
  }
}

/// All tuples of `count` of these values.
inline std::vector<Values> tuples(const Values& values, std::size_t count) {
  std::vector<Values> rows = {{}};
  for (std::size_t i = 0; i < count; ++i) {
    std::vector<Values> longer;
    for (const Values& row : rows) {
      for (const u64 value : values) {
        longer.push_back(row);
        longer.back().push_back(value);
      }
    }
    rows = std::move(longer);
  }
  return rows;
}

/// Appends `num_rows` rows of random bits.
inline std::vector<Values> with_random(std::vector<Values> rows, std::size_t num_rows,
                                       std::size_t count, u64 seed = 1) {
  std::mt19937_64 random(seed);
  for (std::size_t i = 0; i < num_rows; ++i) {
    Values row(count);
    for (u64& value : row) value = random();
    rows.push_back(row);
  }
  return rows;
}

}  // namespace ptxsim::test
