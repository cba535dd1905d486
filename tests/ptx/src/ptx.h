// PTX text as data: functions with their registers, variables and instructions, without the
// instructions' meaning. Section numbers, here and elsewhere, are those of the PTX ISA manual,
// version 9.0.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "types.h"

namespace ptxsim {

/// A register: one value per lane. Its 32 lanes lie side by side in the warp's register file.
struct Reg {
  u32 offset = 0;  // Bytes, in the register file.
  u32 number = 0;  // Among the function's registers.
  u8 bytes = 4;    // Per lane: 2, 4, 8; 0: a predicate, one bit per lane of a 32-bit word.
};

enum class Space : u8 { kGeneric, kGlobal, kShared, kLocal, kParam, kConst };

/// A variable of the module or of a function. A .param that a function declares for a call counts
/// as local.
struct Variable {
  Space space = Space::kGlobal;
  u64 offset =
      0;  // In the parameters, the block's shared or the lane's local memory; else an address.
  u64 bytes = 0;
  u32 align = 1;
  bool dynamic = false;  // extern .shared x[].
};

/// What a register holds before the first instruction: a special register (section 10), an address,
/// or a constant of the text.
enum class Source : u8 {
  kConstant,
  kParam,
  kLocal,
  kShared,
  kDynamicShared,
  kTidX,
  kTidY,
  kTidZ,
  kNtidX,
  kNtidY,
  kNtidZ,
  kCtaidX,
  kCtaidY,
  kCtaidZ,
  kNctaidX,
  kNctaidY,
  kNctaidZ,
  kLaneid,
  kWarpid,
  kNwarpid,
  kLaneLt,
  kLaneLe,
  kLaneGt,
  kLaneGe,
  kLaneEq,
  kClusteridX,
  kClusteridY,
  kClusteridZ,
  kNclusteridX,
  kNclusteridY,
  kNclusteridZ,
  kClusterCtaidX,
  kClusterCtaidY,
  kClusterCtaidZ,
  kClusterNctaidX,
  kClusterNctaidY,
  kClusterNctaidZ,
  kClusterCtarank,
  kClusterNctarank,
  kIsExplicitCluster,
  kSmid,
  kNsmid,
  kGridid,
  kDynamicSmemSize,
  kTotalSmemSize
};
struct Initial {
  Source source = Source::kConstant;
  u64 value = 0;  // kConstant; an address's offset; kDynamicShared: added to its start.
  Reg reg;
};

struct Operand {
  enum class Kind : u8 {
    kRegister,
    kImmediate,
    kVector,    // {a, b}: `parts`.
    kAddress,   // [base+offset], [base, {coordinates}]: `parts` are the coordinates, as one vector.
    kLabel,     // `value`: its number; with `is_table`: of a .branchtargets list.
    kSink,      // _
    kClock,     // Reads %clock, %clock64, %globaltimer.
    kFunction,  // call: `name`; `parts`: the parameters' addresses. The operands that follow are
                // the results' addresses.
  };
  Kind kind = Kind::kRegister;
  bool negated = false;      // !p: negates it.
  bool is_floating = false;  // An immediate that was written as 0f, 0d or a decimal.
  bool is_double = false;    // Its bits are those of a double: 0d or a decimal.
  bool is_variable = false;  // A variable's address; `value` is added to it.
  bool is_table = false;
  Reg reg;                        // kRegister, kAddress (the base).
  s64 value = 0;                  // kImmediate: its bits; kAddress: the offset; kLabel.
  Space space = Space::kGeneric;  // For a variable.
  std::string name;
  std::vector<Operand> parts;  // kVector, kAddress, kFunction; kRegister: the q of p|q.
};

struct Instruction {
  std::string opcode;              // As written, with modifiers.
  std::vector<std::string> words;  // The opcode, split at its dots.
  std::vector<Operand> operands;
  bool has_guard = false;
  bool guard_negated = false;
  Reg guard;
  u32 line = 0;  // Line of the PTX text, from 1.
  std::string text;
};

struct Parameter {
  u64 offset = 0;
  u64 bytes = 0;
};

/// A kernel (.entry).
struct Function {
  std::string name;
  std::vector<Instruction> code;
  std::vector<s64> labels;                // Per label: the instruction that it precedes.
  std::vector<std::vector<u32>> targets;  // .branchtargets lists of label numbers.
  std::vector<Initial> initial;
  std::vector<Parameter> parameters;
  u64 parameter_bytes = 0;
  u32 register_bytes = 0;  // Size of one warp's register file.
  u32 num_registers = 0;
  u64 local_bytes = 0;   // Per lane.
  u64 shared_bytes = 0;  // Static.
  u32 dynamic_shared_align = 16;
  // Performance-tuning directives (section 11.4); 0: not given.
  u32 max_threads = 0;    // .maxntid or .reqntid.
  u32 min_blocks = 0;     // .minnctapersm
  u32 max_registers = 0;  // .maxnreg
  u32 cluster[3] = {};    // .reqnctapercluster

  /// Adds a register and places it in the register file.
  Reg add_register(u8 bytes);
  /// Allocates a variable in shared or local memory. @return its offset.
  u64 add_variable(Space space, const Variable& variable);
};

struct Module {
  std::string target;  // "sm_90a"
  std::map<std::string, std::unique_ptr<Function>> functions;
  std::map<std::string, Variable> variables;
  std::vector<std::unique_ptr<u8[]>> memory;  // For .global and .const.
};

/// @throws Error that names the line of `text` that is not understood.
std::unique_ptr<Module> parse(const std::string& text);

/// The size of a type's value, "b32": 4. 0 for .pred, or if it is no type.
u8 bytes_of_type(std::string_view type);

}  // namespace ptxsim
