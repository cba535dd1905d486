// The table of all known instructions: how each is written, the manual's section that defines it,
// and the function that decodes it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "ptx.h"

namespace ptxsim {

class Decoder;

/// A row of the table. `syntax` is the opcode as the manual writes it, with its choices inline:
/// braces hold optional ones, parentheses required ones: "add{.rn|.rz}{.ftz}{.sat}.f32",
/// "and(.b16|.b32|.b64)".
struct Form {
  const char* syntax;
  const char* section;  // In the PTX ISA manual.
  void (*decode)(Decoder& decoder);
};

std::span<const Form> instruction_set();

/// @throws Error that names the opcode, or the first modifier or type that no form allows there.
const Form& find_form(const Instruction& instruction);

/// Whether an opcode, split at its dots, matches `syntax`; otherwise how many of its words do.
struct Match {
  bool matches = false;
  std::size_t num_words = 0;
};
Match match(const char* syntax, std::span<const std::string> words);

}  // namespace ptxsim
