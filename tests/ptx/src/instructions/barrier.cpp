// Barriers of blocks and clusters (sections 9.7.13.1, 9.7.13.3) and setmaxnreg (9.7.19.5):
// barriers.h implements them.
// SPDX-License-Identifier: Apache-2.0
#include "decoder.h"
#include "instructions/instructions.h"

namespace ptxsim {
namespace {

BarrierOperands::Reduction reduction_of(const Decoder& decoder) {
  if (!decoder.has("red")) return BarrierOperands::Reduction::kNone;
  if (decoder.has("popc")) return BarrierOperands::Reduction::kPopc;
  return decoder.has("and") ? BarrierOperands::Reduction::kAnd : BarrierOperands::Reduction::kOr;
}

}  // namespace

// sync: a{, b}; arrive: a, b; red: d, a{, b}, {!}c.
void decode_barrier(Decoder& decoder) {
  BarrierOperands operands;
  operands.reduction = reduction_of(decoder);
  operands.waits = !decoder.has("arrive");
  operands.aligned = decoder.word(0) == "bar" || decoder.has("aligned");
  const bool reduces = operands.reduction != BarrierOperands::Reduction::kNone;
  const std::size_t first = reduces ? 1 : 0;
  const std::size_t least = reduces ? 3 : operands.waits ? 1 : 2;
  const std::size_t most = reduces ? 4 : 2;
  if (decoder.num_operands() < least || decoder.num_operands() > most) {
    decoder.fail(std::to_string(least) + " to " + std::to_string(most) + " operands expected");
  }
  const bool counts_bits = operands.reduction == BarrierOperands::Reduction::kPopc;
  if (reduces) operands.result = decoder.write(0, counts_bits ? 4 : 0);
  operands.id = decoder.read(first, 4);
  operands.has_count = decoder.num_operands() == first + 2 + (reduces ? 1 : 0);
  if (operands.has_count) operands.count = decoder.read(first + 1, 4);
  if (reduces) {
    const Predicate vote = decoder.read_predicate(decoder.num_operands() - 1);
    operands.vote = vote.reg;
    operands.vote_negated = vote.negated;
  }
  decoder.op().barrier = std::make_unique<const BarrierOperands>(operands);
  decoder.nothing(Flow::kBarrier);
}

void decode_cluster_barrier(Decoder& decoder) {
  decoder.expect_operands(0);
  BarrierOperands operands;
  operands.waits = decoder.has("wait");
  operands.aligned = decoder.has("aligned");
  decoder.op().barrier = std::make_unique<const BarrierOperands>(operands);
  decoder.nothing(operands.waits ? Flow::kClusterWait : Flow::kClusterArrive);
}

// setmaxnreg.action.sync.aligned.u32 imm-reg-count
void decode_setmaxnreg(Decoder& decoder) {
  decoder.expect_operands(1);
  const s64 count = decoder.immediate(0);
  constexpr s64 kLeast = 24;
  constexpr s64 kMost = 256;
  constexpr s64 kStep = 8;
  if (count < kLeast || count > kMost || count % kStep != 0) {
    decoder.fail("a multiple of 8 from 24 to 256 is allowed");
  }
  SetRegisters& set = decoder.op().set_registers;
  set.increases = decoder.has("inc");
  set.count = static_cast<u32>(count);
  decoder.nothing(Flow::kSetRegisters);
}

}  // namespace ptxsim
