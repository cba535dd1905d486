// The parser of modules: directives, variables and functions. One pass over the text, which
// resolves names as it goes.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "instruction_parser.h"
#include "names.h"
#include "ptx.h"
#include "scanner.h"

namespace ptxsim {
namespace {

u64 round_up(u64 value, u64 multiple) { return (value + multiple - 1) / multiple * multiple; }

/// A variable's declaration without the name: .align 16 .b8.
struct Declared {
  u32 bytes = 0;
  u32 align = 1;
};

class Parser {
 public:
  explicit Parser(const std::string& text) : scanner_(text) {}

  std::unique_ptr<Module> run() {
    while (scanner_.peek() != '\0') parse_directive();
    return std::move(module_);
  }

 private:
  // ---- Module
  // ------------------------------------------------------------------------------------
  void parse_directive();
  void parse_module_variables(Space space, bool is_extern);
  void parse_initializer(u8* at, u32 bytes, u64 room);

  // ---- Variables
  // ---------------------------------------------------------------------------------
  Declared parse_declared();
  /// Parses the name, and the [sizes] after it.
  std::string parse_variable(Variable& variable, const Declared& declared);

  // ---- Functions
  // ---------------------------------------------------------------------------------
  void parse_function(bool is_entry);
  void parse_parameters();
  void parse_tuning();
  u32 parse_dimensions(u32* dimensions);
  void parse_body();
  void parse_body_directive();
  void parse_registers();
  void parse_own_variables(Space space);
  bool parse_label();

  Scanner scanner_;
  std::unique_ptr<Module> module_ = std::make_unique<Module>();
  // State of the function that is being parsed.
  std::unique_ptr<Function> function_;
  std::unique_ptr<Names> names_;
  std::unique_ptr<InstructionParser> instructions_;
};

// ---- Module -------------------------------------------------------------------------------------

void Parser::parse_directive() {
  if (scanner_.accept(';')) return;
  scanner_.expect('.');
  std::string_view name = scanner_.need_name();
  bool is_extern = false;
  while (name == "visible" || name == "extern" || name == "weak" || name == "common") {
    is_extern |= name == "extern";
    scanner_.expect('.');
    name = scanner_.need_name();
  }
  if (name == "version" || name == "address_size" || name == "file" || name == "loc") {
    scanner_.skip_line();
  } else if (name == "target") {
    module_->target = std::string(scanner_.need_name());
    scanner_.skip_line();
  } else if (name == "section") {
    scanner_.opcode();
    scanner_.skip_braces();
  } else if (name == "entry" || name == "func") {
    parse_function(name == "entry");
  } else if (name == "global" || name == "const" || name == "shared") {
    parse_module_variables(name == "global"  ? Space::kGlobal
                           : name == "const" ? Space::kConst
                                             : Space::kShared,
                           is_extern);
  } else if (name == "pragma") {
    scanner_.skip_past(';');
  } else {
    scanner_.fail("the directive '." + std::string(name) + "' is not known here");
  }
}

void Parser::parse_module_variables(Space space, bool is_extern) {
  const Declared declared = parse_declared();
  do {
    Variable variable{.space = space, .dynamic = is_extern && space == Space::kShared};
    const std::string name = parse_variable(variable, declared);
    if (space != Space::kShared && !is_extern) {
      module_->memory.emplace_back(new u8[variable.bytes + variable.align]());
      const u64 begin = reinterpret_cast<u64>(module_->memory.back().get());
      variable.offset = round_up(begin, variable.align);
      if (scanner_.accept('=')) {
        parse_initializer(reinterpret_cast<u8*>(variable.offset), declared.bytes, variable.bytes);
      }
    }
    if (!module_->variables.try_emplace(name, variable).second) {
      scanner_.fail("'" + name + "' is declared twice");
    }
  } while (scanner_.accept(','));
  scanner_.expect(';');
}

void Parser::parse_initializer(u8* at, u32 bytes, u64 room) {
  if (scanner_.accept('{')) {
    u64 used = 0;
    do {
      const u64 step = scanner_.peek() == '{' ? 0 : bytes;
      if (step == 0) scanner_.fail("an initializer of more than one dimension");
      if (used + step > room) scanner_.fail("more initial values than the variable has");
      parse_initializer(at + used, bytes, bytes);
      used += step;
    } while (scanner_.accept(','));
    scanner_.expect('}');
    return;
  }
  u64 value = 0;
  if (scanner_.at_number()) {
    value = scanner_.number().bits;
  } else {
    std::string name(scanner_.need_name());
    const bool is_generic = name == "generic";
    if (is_generic) {
      scanner_.expect('(');
      name = scanner_.need_name();
      scanner_.expect(')');
    }
    const auto variable = module_->variables.find(name);
    if (variable == module_->variables.end() || variable->second.offset == 0) {
      scanner_.fail("an initial value that is no number and no variable's address");
    }
    value = variable->second.offset;
    if (scanner_.accept('+')) value += static_cast<u64>(scanner_.integer());
  }
  std::memcpy(at, &value, std::min<u64>(bytes, sizeof value));
}

// ---- Variables ----------------------------------------------------------------------------------

Declared Parser::parse_declared() {
  Declared declared;
  u32 lanes = 1;
  bool is_pointer = false;
  while (scanner_.accept('.')) {
    const std::string_view word = scanner_.need_name();
    if (word == "align") {
      const auto align = static_cast<u32>(scanner_.integer());
      if (align == 0 || (align & (align - 1)) != 0)
        scanner_.fail("an alignment of no power of two");
      if (!is_pointer) declared.align = std::max(declared.align, align);
    } else if (word == "ptr") {
      is_pointer = true;  // The rest describes what it points to.
    } else if (word == "v2" || word == "v4") {
      lanes = word == "v2" ? 2 : 4;
    } else if (!is_pointer) {
      declared.bytes = bytes_of_type(word);
      if (declared.bytes == 0) {
        scanner_.fail("the type '." + std::string(word) + "' is not known here");
      }
    }
  }
  declared.bytes *= lanes;
  declared.align = std::max(declared.align, declared.bytes);
  return declared;
}

std::string Parser::parse_variable(Variable& variable, const Declared& declared) {
  std::string name(scanner_.need_name());
  variable.align = declared.align;
  variable.bytes = declared.bytes;
  while (scanner_.accept('[')) {
    if (scanner_.peek() == ']') {
      variable.bytes = 0;
    } else {
      variable.bytes *= static_cast<u64>(scanner_.integer());
    }
    scanner_.expect(']');
  }
  return name;
}

// ---- Functions ----------------------------------------------------------------------------------

void Parser::parse_function(bool is_entry) {
  function_ = std::make_unique<Function>();
  names_ = std::make_unique<Names>();
  instructions_ = std::make_unique<InstructionParser>(scanner_, *module_, *function_, *names_);
  if (!is_entry && scanner_.accept('(')) scanner_.skip_past(')');
  function_->name = std::string(scanner_.need_name());
  if (is_entry) {
    if (scanner_.accept('(')) parse_parameters();
  } else if (scanner_.accept('(')) {
    scanner_.skip_past(')');
  }
  while (scanner_.peek() == '.') parse_tuning();
  if (scanner_.accept(';')) return;  // This was only a declaration.
  if (!is_entry) {
    // Its body is not run: only functions that the system provides can be called.
    scanner_.skip_braces();
    return;
  }
  scanner_.expect('{');
  parse_body();
  const std::string missing = names_->finish_labels(function_->labels);
  if (!missing.empty()) {
    scanner_.fail("the label '" + missing + "' is not defined in " + function_->name);
  }
  module_->functions[function_->name] = std::move(function_);
}

void Parser::parse_parameters() {
  while (!scanner_.accept(')')) {
    scanner_.expect('.');
    if (scanner_.need_name() != "param") scanner_.fail("expected .param");
    const Declared declared = parse_declared();
    Variable variable{.space = Space::kParam};
    const std::string name = parse_variable(variable, declared);
    variable.offset = round_up(function_->parameter_bytes, variable.align);
    function_->parameter_bytes = variable.offset + variable.bytes;
    function_->parameters.push_back({variable.offset, variable.bytes});
    if (!names_->declare_variable(name, variable)) {
      scanner_.fail("'" + name + "' is declared twice");
    }
    scanner_.accept(',');
  }
}

u32 Parser::parse_dimensions(u32* dimensions) {
  u32 count = 1;
  for (int axis = 0; axis < 3; ++axis) {
    if (axis != 0 && !scanner_.accept(',')) {
      dimensions[axis] = 1;
      continue;
    }
    dimensions[axis] = static_cast<u32>(scanner_.integer());
    count *= dimensions[axis];
  }
  return count;
}

void Parser::parse_tuning() {
  scanner_.expect('.');
  const std::string_view name = scanner_.need_name();
  u32 dimensions[3];
  if (name == "maxntid" || name == "reqntid") {
    function_->max_threads = parse_dimensions(dimensions);
  } else if (name == "reqnctapercluster") {
    parse_dimensions(function_->cluster);
  } else if (name == "minnctapersm") {
    function_->min_blocks = static_cast<u32>(scanner_.integer());
  } else if (name == "maxnreg") {
    function_->max_registers = static_cast<u32>(scanner_.integer());
  } else if (name == "maxclusterrank") {
    scanner_.integer();
  } else if (name == "pragma") {
    scanner_.skip_past(';');
  } else if (name != "noreturn" && name != "explicitcluster" && name != "blocksareclusters") {
    scanner_.fail("the directive '." + std::string(name) + "' is not known here");
  }
}

void Parser::parse_body() {
  while (names_->depth() > 0) {
    const char c = scanner_.peek();
    if (c == '\0') scanner_.fail("expected '}'");
    if (scanner_.accept('{')) {
      names_->open();
    } else if (scanner_.accept('}')) {
      if (names_->depth() == 1) return;
      names_->close();
    } else if (scanner_.accept('.')) {
      parse_body_directive();
    } else if (!scanner_.accept(';') && (c == '@' || !parse_label())) {
      instructions_->parse();
    }
  }
}

bool Parser::parse_label() {
  const Scanner::Mark begin = scanner_.mark();
  const std::string_view name = scanner_.name();
  if (!scanner_.accept_label_colon()) {
    scanner_.return_to(begin);
    return false;
  }
  if (scanner_.accept(".branchtargets")) {
    instructions_->parse_branch_targets(name);
  } else if (!names_->place_label(name, function_->code.size())) {
    scanner_.fail("the label '" + std::string(name) + "' is defined twice");
  }
  return true;
}

void Parser::parse_body_directive() {
  const std::string_view name = scanner_.need_name();
  if (name == "reg") {
    parse_registers();
  } else if (name == "shared" || name == "local" || name == "param") {
    parse_own_variables(name == "shared" ? Space::kShared : Space::kLocal);
  } else if (name == "loc" || name == "file") {
    scanner_.skip_line();
  } else if (name == "pragma") {
    scanner_.skip_past(';');
  } else {
    scanner_.fail("the directive '." + std::string(name) + "' is not known here");
  }
}

void Parser::parse_registers() {
  scanner_.expect('.');
  const std::string type(scanner_.need_name());
  u8 bytes = bytes_of_type(type);
  if (bytes == 0 && type != "pred") scanner_.fail("registers of type '." + type + "'");
  bytes = bytes == 1 ? u8{2} : bytes;
  do {
    const std::string name(scanner_.need_name());
    bool is_new = false;
    if (scanner_.accept('<')) {
      const auto count = static_cast<u32>(scanner_.integer());
      scanner_.expect('>');
      Reg first;
      for (u32 i = 0; i < count; ++i) {
        const Reg reg = function_->add_register(bytes);
        if (i == 0) first = reg;
      }
      is_new = names_->declare_registers(name, count, first);
    } else {
      is_new = names_->declare_register(name, function_->add_register(bytes));
    }
    if (!is_new) scanner_.fail("'" + name + "' is declared twice");
  } while (scanner_.accept(','));
  scanner_.expect(';');
}

void Parser::parse_own_variables(Space space) {
  const Declared declared = parse_declared();
  do {
    Variable variable{.space = space};
    const std::string name = parse_variable(variable, declared);
    variable.offset = function_->add_variable(space, variable);
    if (!names_->declare_variable(name, variable)) {
      scanner_.fail("'" + name + "' is declared twice");
    }
  } while (scanner_.accept(','));
  scanner_.expect(';');
}

}  // namespace

std::unique_ptr<Module> parse(const std::string& text) { return Parser(text).run(); }

Reg Function::add_register(u8 bytes) {
  constexpr u32 kAlign = 64;  // Loops over lanes start at a cache line.
  if (bytes != 0) register_bytes = static_cast<u32>(round_up(register_bytes, kAlign));
  const Reg reg{.offset = register_bytes, .number = num_registers++, .bytes = bytes};
  register_bytes += bytes == 0 ? u32{sizeof(u32)} : kWarpSize * bytes;
  return reg;
}

u64 Function::add_variable(Space space, const Variable& variable) {
  u64& used = space == Space::kShared ? shared_bytes : local_bytes;
  const u64 offset = round_up(used, variable.align);
  used = offset + variable.bytes;
  return offset;
}

u8 bytes_of_type(std::string_view type) {
  if (type.ends_with("16x2") || type == "tf32") return 4;
  const std::size_t digits = type.find_first_of("0123456789");
  if (digits == type.npos) return 0;
  const std::string_view kind = type.substr(0, digits);
  if (kind != "b" && kind != "u" && kind != "s" && kind != "f" && kind != "bf") return 0;
  const std::string_view bits = type.substr(digits);
  if (bits == "8" && kind != "f" && kind != "bf") return 1;
  if (bits == "16") return 2;
  if (bits == "32" && kind != "bf") return 4;
  if (bits == "64" && kind != "bf") return 8;
  return 0;
}

}  // namespace ptxsim
