// What decodes one instruction: hands out its modifiers and operands, and notes which registers it
// reads and writes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "operation.h"

namespace ptxsim {

/// [base + offset] of a lane.
struct Address {
  Reg base;
  s64 offset = 0;
  u64 of(const Warp& warp, u32 lane) const;  // 32-bit bases wrap at 32 bits.
};

/// A predicate operand, p or !p.
struct Predicate {
  Reg reg;
  bool negated = false;
  u32 of(const Warp& warp) const;  // A bit per lane.
};

/// Constants that instructions of a function have in common; registers that hold them.
using Constants = std::map<std::pair<u64, u8>, Reg>;

class Decoder {
 public:
  Decoder(Function& function, const Instruction& instruction, Op& op, Constants& constants)
      : function_(function), instruction_(instruction), op_(op), constants_(constants) {}

  // ---- The opcode
  // -----------------------------------------------------------------------------------

  const Instruction& instruction() const { return instruction_; }
  /// Word `i` of the opcode; empty past its end.
  std::string_view word(std::size_t i) const;
  std::string_view last_word() const { return instruction_.words.back(); }
  bool has(std::string_view modifier) const;

  // ---- Operands
  // ------------------------------------------------------------------------------------- `bytes`:
  // of the instruction's type; 0: predicates. All fail where an operand is missing, of another kind
  // or of another size. read(): immediates become registers. Wider registers than the type are
  // allowed where the manual relaxes it (section 9.4.1), by `relaxed`.

  std::size_t num_operands() const { return instruction_.operands.size(); }
  const Operand& operand(std::size_t i) const;
  bool is_sink(std::size_t i) const { return operand(i).kind == Operand::Kind::kSink; }
  void expect_operands(std::size_t count) const;

  Reg read(std::size_t i, u8 bytes);
  Reg read(const Operand& operand, u8 bytes);
  Reg read_relaxed(const Operand& operand, u8 bytes);
  Predicate read_predicate(std::size_t i);
  Reg write(std::size_t i, u8 bytes);
  Reg write(const Operand& operand, u8 bytes);  // A sink: a register that nobody reads.
  Reg write_relaxed(const Operand& operand, u8 bytes);
  /// The parts of a vector, or the operand alone.
  std::vector<Reg> read_all(std::size_t i, u8 bytes);
  std::vector<Reg> write_all(std::size_t i, u8 bytes);
  Address address(std::size_t i);
  /// An immediate's value; fails if it is none.
  s64 immediate(std::size_t i) const;

  /// A register that holds `value` in every lane from the start.
  Reg constant(u64 value, u8 bytes);
  /// The carry of add.cc and its like, one bit a lane.
  Reg carry();
  Reg scratch(u8 bytes) { return function_.add_register(bytes); }

  // ---- The operation
  // --------------------------------------------------------------------------------

  Function& function() { return function_; }
  Op& op() { return op_; }
  void execute(Execute execute, Flow flow = Flow::kNext);
  /// An instruction that only has an effect on time, or on what is not modelled.
  void nothing(Flow flow = Flow::kNext);

  /// Throws an Error with the instruction's text and line.
  [[noreturn]] void fail(const std::string& what) const;

 private:
  Reg immediate_register(const Operand& operand, u8 bytes);
  Reg variable_register(const Operand& operand, u8 bytes);

  Function& function_;
  const Instruction& instruction_;
  Op& op_;
  Constants& constants_;
};

}  // namespace ptxsim
