// SPDX-License-Identifier: Apache-2.0
#include "instruction_parser.h"

#include <algorithm>

#include "special_registers.h"

namespace ptxsim {
namespace {

std::vector<std::string> cut_at_dots(const std::string& opcode) {
  std::vector<std::string> words;
  for (std::size_t begin = 0; begin <= opcode.size();) {
    const std::size_t dot = std::min(opcode.find('.', begin), opcode.size());
    words.push_back(opcode.substr(begin, dot - begin));
    begin = dot + 1;
  }
  return words;
}

}  // namespace

void InstructionParser::parse() {
  const Scanner::Mark begin = scanner_.mark();
  Instruction instruction;
  instruction.line = begin.line;
  if (scanner_.accept('@')) {
    instruction.has_guard = true;
    instruction.guard_negated = scanner_.accept('!');
    const std::optional<Reg> guard = names_.find_register(scanner_.need_name());
    if (!guard || guard->bytes != 0) scanner_.fail("a guard that is no predicate");
    instruction.guard = *guard;
  }
  instruction.opcode = std::string(scanner_.opcode());
  instruction.words = cut_at_dots(instruction.opcode);
  if (instruction.words[0] == "call") {
    parse_call(instruction);
  } else if (scanner_.peek() != ';') {
    do {
      instruction.operands.push_back(parse_operand());
    } while (scanner_.accept(','));
  }
  instruction.text = scanner_.text_since(begin);
  scanner_.expect(';');
  function_.code.push_back(std::move(instruction));
}

void InstructionParser::parse_call(Instruction& instruction) {
  const auto parse_variables = [&](std::vector<Operand>& into) {
    while (!scanner_.accept(')')) {
      const std::string_view name = scanner_.need_name();
      const Variable* variable = find_variable(name);
      if (variable == nullptr) scanner_.fail("a parameter of a call that is no variable");
      Operand parameter = variable_operand(*variable, name);
      parameter.kind = Operand::Kind::kAddress;
      into.push_back(std::move(parameter));
      scanner_.accept(',');
    }
  };
  std::vector<Operand> results;
  if (scanner_.accept('(')) {
    parse_variables(results);
    scanner_.expect(',');
  }
  Operand callee;
  callee.kind = Operand::Kind::kFunction;
  callee.name = std::string(scanner_.need_name());
  if (scanner_.accept(',')) {
    scanner_.expect('(');
    parse_variables(callee.parts);
  }
  if (scanner_.peek() == ',') scanner_.fail("a call by address");
  instruction.operands.push_back(std::move(callee));
  std::move(results.begin(), results.end(), std::back_inserter(instruction.operands));
}

void InstructionParser::parse_branch_targets(std::string_view name) {
  std::vector<u32> targets;
  do {
    targets.push_back(names_.use_label(scanner_.need_name()));
  } while (scanner_.accept(','));
  scanner_.expect(';');
  tables_[std::string(name)] = static_cast<u32>(function_.targets.size());
  function_.targets.push_back(std::move(targets));
}

// ---- Operands ----------------------------------------------------------------------------------

Operand InstructionParser::parse_operand() {
  const char c = scanner_.peek();
  if (c == '{') return parse_vector();
  if (c == '[') return parse_address();
  if (c == '!') {
    scanner_.expect('!');
    Operand operand = parse_operand();
    operand.negated = true;
    return operand;
  }
  Operand operand = scanner_.at_number() ? parse_immediate() : parse_name();
  if (scanner_.accept('|')) operand.parts.push_back(parse_operand());
  return operand;
}

Operand InstructionParser::parse_vector() {
  Operand vector;
  vector.kind = Operand::Kind::kVector;
  scanner_.expect('{');
  do {
    vector.parts.push_back(parse_operand());
  } while (scanner_.accept(','));
  scanner_.expect('}');
  return vector;
}

Operand InstructionParser::parse_address() {
  scanner_.expect('[');
  Operand address;
  if (scanner_.at_number()) {
    address.reg = initial(Source::kConstant, static_cast<u64>(scanner_.integer()), 8);
  } else {
    address = parse_name();
    if (address.kind != Operand::Kind::kRegister) scanner_.fail("no register and no variable");
  }
  address.kind = Operand::Kind::kAddress;
  // The operand of a variable already has its offset.
  if (scanner_.accept('+')) address.value += scanner_.integer();
  if (scanner_.peek() == '-') address.value += scanner_.integer();
  while (scanner_.accept(',')) address.parts.push_back(parse_operand());
  scanner_.expect(']');
  return address;
}

Operand InstructionParser::parse_immediate() {
  const Number number = scanner_.number();
  Operand immediate;
  immediate.kind = Operand::Kind::kImmediate;
  immediate.is_floating = number.kind != Number::Kind::kInteger;
  immediate.is_double = number.kind == Number::Kind::kDouble;
  immediate.value = static_cast<s64>(number.bits);
  return immediate;
}

Operand InstructionParser::parse_name() {
  const Scanner::Mark begin = scanner_.mark();
  std::string name(scanner_.need_name());
  // %tid.x is the special register, whatever the kernel calls %tid.
  if (name[0] == '%') name += scanner_.component();
  Operand operand;
  if (name == "_") {
    operand.kind = Operand::Kind::kSink;
    return operand;
  }
  if (name == "WARP_SZ") {
    operand.kind = Operand::Kind::kImmediate;
    operand.value = kWarpSize;
    return operand;
  }
  name += scanner_.component();
  if (const std::optional<Reg> reg = names_.find_register(name)) {
    operand.reg = *reg;
    return operand;
  }
  if (const Variable* variable = find_variable(name)) return variable_operand(*variable, name);
  if (name[0] == '%') {
    if (const auto special = find_special_register(name)) {
      operand.reg = initial(special->source, 0, special->bytes);
      return operand;
    }
    if (!is_clock(name)) {
      scanner_.return_to(begin);
      scanner_.fail("'" + name + "' is no register");
    }
    operand.kind = Operand::Kind::kClock;
    operand.name = name;
    return operand;
  }
  operand.kind = Operand::Kind::kLabel;
  operand.name = name;
  const auto table = tables_.find(name);
  operand.is_table = table != tables_.end();
  operand.value = operand.is_table ? table->second : names_.use_label(name);
  return operand;
}

// ---- Variables ---------------------------------------------------------------------------------

const Variable* InstructionParser::find_variable(std::string_view name) const {
  if (const Variable* own = names_.find_variable(name)) return own;
  const auto found = module_.variables.find(std::string(name));
  return found == module_.variables.end() ? nullptr : &found->second;
}

u64 InstructionParser::shared_offset(const Variable& variable) {
  const auto [found, is_new] = shared_offsets_.try_emplace(&variable, 0);
  if (is_new) found->second = function_.add_variable(Space::kShared, variable);
  return found->second;
}

Operand InstructionParser::variable_operand(const Variable& variable, std::string_view name) {
  Operand operand;
  operand.is_variable = true;
  operand.space = variable.space;
  operand.name = std::string(name);
  switch (variable.space) {
    case Space::kShared:
      if (variable.dynamic) {
        function_.dynamic_shared_align = std::max(function_.dynamic_shared_align, variable.align);
        operand.reg = initial(Source::kDynamicShared, 0, 8);
      } else {
        const bool is_own = names_.find_variable(name) == &variable;
        operand.reg =
            initial(Source::kShared, is_own ? variable.offset : shared_offset(variable), 8);
      }
      break;
    case Space::kParam:
      operand.reg = initial(Source::kParam, variable.offset, 8);
      break;
    case Space::kLocal:
      operand.reg = initial(Source::kLocal, variable.offset, 8);
      break;
    default:
      if (variable.offset == 0) scanner_.fail("'" + operand.name + "' is defined in no module");
      operand.reg = initial(Source::kConstant, variable.offset, 8);
  }
  if (scanner_.accept('+')) operand.value = scanner_.integer();
  return operand;
}

Reg InstructionParser::initial(Source source, u64 value, u8 bytes) {
  const auto [found, is_new] = initials_.try_emplace({source, value, bytes});
  if (is_new) {
    found->second = function_.add_register(bytes);
    function_.initial.push_back({source, value, found->second});
  }
  return found->second;
}

}  // namespace ptxsim
