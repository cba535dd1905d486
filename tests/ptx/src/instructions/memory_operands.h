// Shared by memory instructions: the state space of an address, cache policies.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "decoder.h"

namespace ptxsim {

/// The state space that the opcode names; kGeneric if it names none.
Space space_of(const Decoder& decoder);
/// Expects `num_operands`, and with .L2::cache_hint one more, which it reads.
void expect_operands_and_policy(Decoder& decoder, std::size_t num_operands);

}  // namespace ptxsim
