// Control flow (section 9.7.12), and instructions that only affect time (9.7.19). Calls: call.cpp.
// SPDX-License-Identifier: Apache-2.0
#include "decoder.h"
#include "instructions/instructions.h"

namespace ptxsim {
namespace {

u32 place_of_label(Decoder& decoder, s64 label) {
  const auto& labels = decoder.function().labels;
  if (label < 0 || static_cast<std::size_t>(label) >= labels.size()) decoder.fail("no label");
  const s64 place = labels[static_cast<std::size_t>(label)];
  if (place < 0) decoder.fail("a label that is not defined");
  return static_cast<u32>(place);
}

}  // namespace

void decode_bra(Decoder& decoder) {
  decoder.expect_operands(1);
  const Operand& label = decoder.operand(0);
  if (label.kind != Operand::Kind::kLabel || label.is_table) decoder.fail("no label");
  decoder.op().targets = {place_of_label(decoder, label.value)};
  decoder.nothing(Flow::kBranch);
}

void decode_brx(Decoder& decoder) {
  decoder.expect_operands(2);
  Op& op = decoder.op();
  op.index = decoder.read(0, 4);
  const Operand& table = decoder.operand(1);
  const auto& tables = decoder.function().targets;
  if (table.kind != Operand::Kind::kLabel || !table.is_table || table.value < 0 ||
      static_cast<std::size_t>(table.value) >= tables.size()) {
    decoder.fail("no .branchtargets list");
  }
  for (const u32 label : tables[static_cast<std::size_t>(table.value)]) {
    op.targets.push_back(place_of_label(decoder, label));
  }
  decoder.nothing(Flow::kBranchTable);
}

// Only kernels run, so a return is an exit.
void decode_exit(Decoder& decoder) {
  decoder.expect_operands(0);
  decoder.nothing(Flow::kExit);
}

void decode_trap(Decoder& decoder) {
  decoder.expect_operands(0);
  decoder.nothing(Flow::kTrap);
}

void decode_nanosleep(Decoder& decoder) {
  decoder.expect_operands(1);
  decoder.read(0, 4);
  decoder.nothing(Flow::kYield);
}

// A grid starts when the one before it has ended, so there is nobody to wait for or to wake.
void decode_griddepcontrol(Decoder& decoder) {
  decoder.expect_operands(0);
  decoder.nothing();
}

void decode_pmevent(Decoder& decoder) {
  decoder.expect_operands(1);
  decoder.immediate(0);
  decoder.nothing();
}

}  // namespace ptxsim
