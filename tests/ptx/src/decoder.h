// Decodes one instruction: returns its modifiers and operands, and records which registers it reads
// and writes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "operation.h"

namespace ptxsim {

/// The address [base + offset] of a lane.
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

/// Constants that a function's instructions share, and the registers that hold them.
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
  // -------------------------------------------------------------------------------------
  // `bytes` is the size of the instruction's type; 0 for predicates. All fail if an operand is
  // missing, or of another kind or size. read() turns immediates into registers. `relaxed` allows
  // registers wider than the type, where the manual does (section 9.4.1).

  std::size_t num_operands() const { return instruction_.operands.size(); }
  const Operand& operand(std::size_t i) const;
  bool is_sink(std::size_t i) const { return operand(i).kind == Operand::Kind::kSink; }
  void expect_operands(std::size_t count) const;

  Reg read(std::size_t i, u8 bytes);
  Reg read(const Operand& operand, u8 bytes);
  Reg read_relaxed(const Operand& operand, u8 bytes);
  Predicate read_predicate(std::size_t i);
  Reg write(std::size_t i, u8 bytes);
  Reg write(const Operand& operand, u8 bytes);  // For a sink: a register that nothing reads.
  Reg write_relaxed(const Operand& operand, u8 bytes);
  /// The parts of a vector, or the operand itself.
  std::vector<Reg> read_all(std::size_t i, u8 bytes);
  std::vector<Reg> write_all(std::size_t i, u8 bytes);
  Address address(std::size_t i);
  /// The value of an immediate; fails if the operand is not one.
  s64 immediate(std::size_t i) const;

  /// A register that holds `value` in every lane from the start.
  Reg constant(u64 value, u8 bytes);
  /// The carry of add.cc and similar instructions, one bit per lane.
  Reg carry();
  Reg scratch(u8 bytes) { return function_.add_register(bytes); }

  // ---- The operation
  // --------------------------------------------------------------------------------

  Function& function() { return function_; }
  Op& op() { return op_; }
  void execute(Execute execute, Flow flow = Flow::kNext);
  /// Decodes an instruction that only affects time, or what is not modelled.
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
