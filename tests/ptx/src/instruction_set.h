// The table of all instructions that are known: how each is written, where the manual defines it,
// and what decodes it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "ptx.h"

namespace ptxsim {

class Decoder;

/// A line of the table. `syntax` is the opcode as the manual writes it, with choices in place: in
/// braces what may be left out, in parentheses what may not: "add{.rn|.rz}{.ftz}{.sat}.f32",
/// "and(.b16|.b32|.b64)".
struct Form {
  const char* syntax;
  const char* section;  // Of the PTX ISA manual.
  void (*decode)(Decoder& decoder);
};

std::span<const Form> instruction_set();

/// @throws Error that names the opcode, or the first modifier or type that no form allows in its
/// place.
const Form& find_form(const Instruction& instruction);

/// Whether an opcode, cut at its dots, is written as `syntax` says; else how many of its words
/// agree.
struct Match {
  bool matches = false;
  std::size_t num_words = 0;
};
Match match(const char* syntax, std::span<const std::string> words);

}  // namespace ptxsim
