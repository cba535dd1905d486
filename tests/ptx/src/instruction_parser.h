// Parses the instructions of one function: opcode, guard and operands, with names resolved.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <tuple>

#include "names.h"
#include "ptx.h"
#include "scanner.h"

namespace ptxsim {

class InstructionParser {
 public:
  InstructionParser(Scanner& scanner, Module& module, Function& function, Names& names)
      : scanner_(scanner), module_(module), function_(function), names_(names) {}

  /// Appends the instruction that starts here to the function.
  void parse();
  /// name: .branchtargets a, b; starts after the colon.
  void parse_branch_targets(std::string_view name);

 private:
  void parse_call(Instruction& instruction);
  Operand parse_operand();
  Operand parse_vector();
  Operand parse_address();
  Operand parse_immediate();
  Operand parse_name();
  Operand variable_operand(const Variable& variable, std::string_view name);
  const Variable* find_variable(std::string_view name) const;
  /// Offset of a variable of the module's shared memory within this function's.
  u64 shared_offset(const Variable& variable);
  /// The register that holds this value from the start.
  Reg initial(Source source, u64 value, u8 bytes);

  Scanner& scanner_;
  Module& module_;
  Function& function_;
  Names& names_;
  std::map<std::tuple<Source, u64, u8>, Reg> initials_;
  std::map<const Variable*, u64> shared_offsets_;
  std::map<std::string, u32, std::less<>> tables_;  // Branch target tables by name.
};

}  // namespace ptxsim
