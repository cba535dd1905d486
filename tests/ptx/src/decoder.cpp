// SPDX-License-Identifier: Apache-2.0
#include "decoder.h"

#include <algorithm>
#include <bit>

#include "instruction_set.h"

namespace ptxsim {
namespace {

/// Not the size of any register: constants of this size are the carry.
constexpr u8 kCarrySize = 0xff;

std::string bytes_text(u8 bytes) {
  return bytes == 0 ? "a predicate" : std::to_string(8 * bytes) + " bits";
}

}  // namespace

void Decoder::fail(const std::string& what) const {
  throw Error("PTX line " + std::to_string(instruction_.line) + ": " + instruction_.text + ": " +
              what);
}

std::string_view Decoder::word(std::size_t i) const {
  return i < instruction_.words.size() ? std::string_view(instruction_.words[i])
                                       : std::string_view();
}

bool Decoder::has(std::string_view modifier) const {
  const auto& words = instruction_.words;
  return std::find(words.begin() + 1, words.end(), modifier) != words.end();
}

// ---- Operands ----------------------------------------------------------------------------------

const Operand& Decoder::operand(std::size_t i) const {
  if (i >= num_operands()) fail("operand " + std::to_string(i + 1) + " is missing");
  return instruction_.operands[i];
}

void Decoder::expect_operands(std::size_t count) const {
  if (num_operands() != count) {
    fail(std::to_string(count) + " operands expected, not " + std::to_string(num_operands()));
  }
}

Reg Decoder::read(std::size_t i, u8 bytes) { return read(operand(i), bytes); }
Reg Decoder::write(std::size_t i, u8 bytes) { return write(operand(i), bytes); }

Reg Decoder::read(const Operand& operand, u8 bytes) {
  const Reg reg = read_relaxed(operand, bytes);
  if (reg.bytes != bytes) {
    fail("an operand has " + bytes_text(reg.bytes) + ", expected " + bytes_text(bytes));
  }
  return reg;
}

Reg Decoder::read_relaxed(const Operand& operand, u8 bytes) {
  if (operand.kind == Operand::Kind::kImmediate) return immediate_register(operand, bytes);
  if (operand.kind != Operand::Kind::kRegister) fail("an operand is neither register nor number");
  if (operand.negated) fail("'!' is not allowed here");
  if (operand.is_variable) return variable_register(operand, bytes);
  if (operand.reg.bytes < bytes || (bytes == 0 && operand.reg.bytes != 0)) {
    fail("an operand has " + bytes_text(operand.reg.bytes) + ", expected " + bytes_text(bytes));
  }
  op_.reads.push_back(operand.reg.number);
  return operand.reg;
}

Predicate Decoder::read_predicate(std::size_t i) {
  const Operand& given = operand(i);
  Operand plain = given;
  plain.negated = false;
  return {read(plain, 0), given.negated};
}

Reg Decoder::write(const Operand& operand, u8 bytes) {
  const Reg reg = write_relaxed(operand, bytes);
  if (reg.bytes != bytes) {
    fail("the result has " + bytes_text(reg.bytes) + ", expected " + bytes_text(bytes));
  }
  return reg;
}

Reg Decoder::write_relaxed(const Operand& operand, u8 bytes) {
  if (operand.kind == Operand::Kind::kSink) return scratch(bytes == 1 ? u8{2} : bytes);
  if (operand.kind != Operand::Kind::kRegister || operand.is_variable || operand.negated) {
    fail("the result is no register");
  }
  if (operand.reg.bytes < bytes || (bytes == 0 && operand.reg.bytes != 0)) {
    fail("the result has " + bytes_text(operand.reg.bytes) + ", expected " + bytes_text(bytes));
  }
  op_.writes.push_back(operand.reg.number);
  return operand.reg;
}

std::vector<Reg> Decoder::read_all(std::size_t i, u8 bytes) {
  const Operand& given = operand(i);
  if (given.kind != Operand::Kind::kVector) return {read(given, bytes)};
  std::vector<Reg> regs;
  for (const Operand& part : given.parts) regs.push_back(read(part, bytes));
  return regs;
}

std::vector<Reg> Decoder::write_all(std::size_t i, u8 bytes) {
  const Operand& given = operand(i);
  if (given.kind != Operand::Kind::kVector) return {write(given, bytes)};
  std::vector<Reg> regs;
  for (const Operand& part : given.parts) regs.push_back(write(part, bytes));
  return regs;
}

Address Decoder::address(std::size_t i) {
  const Operand& given = operand(i);
  if (given.kind != Operand::Kind::kAddress) fail("an operand is no address");
  if (given.reg.bytes != 4 && given.reg.bytes != 8) fail("an address of neither 32 nor 64 bits");
  if (!given.is_variable) op_.reads.push_back(given.reg.number);
  return {given.reg, given.value};
}

s64 Decoder::immediate(std::size_t i) const {
  const Operand& given = operand(i);
  if (given.kind != Operand::Kind::kImmediate || given.is_floating) {
    fail("operand " + std::to_string(i + 1) + " is no integer");
  }
  return given.value;
}

Reg Decoder::immediate_register(const Operand& operand, u8 bytes) {
  const auto value = static_cast<u64>(operand.value);
  if (bytes == 0) return constant(value != 0 ? kAllLanes : 0, 0);
  if (operand.is_floating) {
    if (bytes == 4) {
      const auto rounded = static_cast<float>(std::bit_cast<double>(value));
      return constant(operand.is_double ? std::bit_cast<u32>(rounded) : value, 4);
    }
    if (bytes != 8) fail("a number with a point where " + bytes_text(bytes) + " are expected");
    const double wide = std::bit_cast<float>(static_cast<u32>(value));
    return constant(operand.is_double ? value : std::bit_cast<u64>(wide), 8);
  }
  if (bytes >= 8) return constant(value, 8);
  const int bits = 8 * bytes;
  const s64 above = operand.value >> bits;
  const bool fits = above == 0 || (operand.value >> (bits - 1)) == -1;
  if (!fits) fail("a number does not fit into " + bytes_text(bytes));
  return constant(value & ((u64{1} << bits) - 1), bytes == 1 ? u8{2} : bytes);
}

Reg Decoder::variable_register(const Operand& operand, u8 bytes) {
  if (bytes == 8 && operand.value == 0) return operand.reg;
  if (bytes != 4 && bytes != 8) fail("a variable's address has 32 or 64 bits");
  const auto& initial = function_.initial;
  const auto address = std::find_if(initial.begin(), initial.end(), [&](const Initial& known) {
    return known.reg.number == operand.reg.number;
  });
  if (address == initial.end()) fail("a variable without a place");
  const Initial sum{.source = address->source,
                    .value = address->value + static_cast<u64>(operand.value),
                    .reg = scratch(bytes)};
  function_.initial.push_back(sum);
  return sum.reg;
}

Reg Decoder::constant(u64 value, u8 bytes) {
  const auto [found, is_new] = constants_.try_emplace({value, bytes});
  if (is_new) {
    found->second = scratch(bytes);
    function_.initial.push_back({Source::kConstant, value, found->second});
  }
  return found->second;
}

Reg Decoder::carry() {
  const auto [found, is_new] = constants_.try_emplace({0, kCarrySize});
  if (is_new) found->second = scratch(0);
  return found->second;
}

// ---- The operation -----------------------------------------------------------------------------

void Decoder::execute(Execute execute, Flow flow) {
  op_.execute = std::move(execute);
  op_.flow = flow;
}

void Decoder::nothing(Flow flow) {
  execute([](Warp&, u32) {}, flow);
}

std::unique_ptr<Kernel> decode(Function& function) {
  auto kernel = std::make_unique<Kernel>();
  kernel->function = &function;
  kernel->ops.reserve(function.code.size() + 1);
  Constants constants;
  struct Known {
    const Form* form;
    u32 number;
  };
  std::map<std::string_view, Known> known;
  for (const Instruction& instruction : function.code) {
    auto found = known.find(instruction.opcode);
    if (found == known.end()) {
      const auto number = static_cast<u32>(kernel->opcodes.size());
      found = known.emplace(instruction.opcode, Known{&find_form(instruction), number}).first;
      kernel->opcodes.push_back(instruction.opcode);
      if (instruction.opcode.starts_with("cp.async.bulk") || instruction.words[0] == "wgmma") {
        kernel->uses_async_proxy = true;
      }
    }
    Op& op = kernel->ops.emplace_back();
    op.source = &instruction;
    op.rule = found->second.form;
    op.form = found->second.number;
    op.has_guard = instruction.has_guard;
    op.guard_negated = instruction.guard_negated;
    op.guard = instruction.guard;
    Decoder decoder(function, instruction, op, constants);
    op.rule->decode(decoder);
  }
  Op& end = kernel->ops.emplace_back();
  end.form = static_cast<u32>(kernel->opcodes.size());
  end.flow = Flow::kExit;
  end.execute = [](Warp&, u32) {};
  kernel->opcodes.emplace_back("(end)");
  return kernel;
}

}  // namespace ptxsim
