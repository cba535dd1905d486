// Decoded instructions, which the machine runs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ptx.h"

namespace ptxsim {

struct Warp;
struct Form;

/// Does an instruction's work for some lanes of a warp.
using Execute = std::function<void(Warp& warp, u32 lanes)>;

/// What an instruction means for the schedule.
enum class Flow : u8 {
  kNext,         // Executes and goes on.
  kBranch,       // To `targets[0]`.
  kBranchTable,  // To `targets[index]`.
  kExit,
  kTrap,
  kMeetMask,     // Executes once all lanes of `members` are here.
  kMeetWarp,     // .aligned: executes once all live lanes are here.
  kWarpBarrier,  // bar.warp.sync: its lanes may be at different ones.
  kBarrier,      // `barrier` says how.
  kClusterArrive,
  kClusterWait,
  kSetRegisters,  // setmaxnreg: `barrier` is not used; `set_registers`.
  kPoll,          // Executes; if it set Warp::poll_failed, others run first.
  kYield,         // Others run first.
};

/// bar, barrier (section 9.7.13.1).
struct BarrierOperands {
  enum class Reduction : u8 { kNone, kAnd, kOr, kPopc };
  Reg id, count;
  bool has_count = false;
  bool waits = true;    // False for .arrive.
  bool aligned = true;  // All lanes of the warp come together.
  Reduction reduction = Reduction::kNone;
  Reg vote, result;
  bool vote_negated = false;
};

/// setmaxnreg (section 9.7.19).
struct SetRegisters {
  bool increases = false;
  u32 count = 0;
};

struct Op {
  Execute execute;
  Flow flow = Flow::kNext;
  bool has_guard = false;
  bool guard_negated = false;
  Reg guard;
  std::vector<u32> targets;  // For branches: instructions.
  Reg index;                 // For kBranchTable.
  Reg members;               // For kMeetMask and kWarpBarrier.
  std::unique_ptr<const BarrierOperands> barrier;
  SetRegisters set_registers;
  bool meets_warpgroup = false;  // For kMeetWarp: wgmma, if Options::warpgroups_meet is set.

  // Register numbers, for the checks.
  std::vector<u32> reads, writes;
  /// A copy of an undefined value is undefined, and no error, because the compiler moves values
  /// that it knows are unused. Any other use of an undefined register is an error.
  bool copies_undefined = false;
  /// selp: copies reads[0] where `selector` holds and reads[1] elsewhere; the other one is not
  /// used.
  bool selects = false;
  bool selector_negated = false;
  Reg selector;
  bool is_product = false;  // wgmma.mma_async: its registers have rules of their own (products.h).

  u32 form = 0;                         // Index into Kernel::opcodes.
  const Form* rule = nullptr;           // Row of the table of instructions.
  const Instruction* source = nullptr;  // Null: the end of the text.
};

struct Kernel {
  Function* function = nullptr;
  std::vector<Op> ops;               // The last one stands for falling off the end.
  std::vector<std::string> opcodes;  // Each once.
  bool uses_async_proxy = false;     // Bulk copies, wgmma.
};

/// @throws Error that names an unknown instruction, modifier or type, with its line.
std::unique_ptr<Kernel> decode(Function& function);

}  // namespace ptxsim
