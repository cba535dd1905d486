// wgmma under way (section 9.7.15): between its issue and the wait for its group, its registers and
// its operands in shared memory are not to be touched.
//
// Each warp computes its 16 rows of the warpgroup's 64, at the issue or at the wait
// (Options::landing), one product after another.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <vector>

#include "matrix_descriptor.h"
#include "multiply.h"
#include "ptx.h"
#include "types.h"

namespace ptxsim {

struct Warp;
struct Op;

/// A wgmma.mma_async of the text, decoded.
struct Product {
  u32 line = 0;
  u32 num_columns = 8;
  Element element = Element::kF16;
  bool accumulators_are_f16 = false;
  bool negates = false;  // imm-scale-a differs from imm-scale-b.
  bool a_in_registers = false;
  bool a_is_mn_major = false, b_is_mn_major = false;
  std::vector<Reg> accumulators;
  std::vector<Reg> a;  // If a_in_registers.
  Reg a_descriptor, b_descriptor;
  Reg scale_d;  // A predicate.
  bool scale_d_negated = false;

  std::vector<u32> accumulator_offsets;  // In the register file.
  std::vector<u32> a_chunks;             // Eight elements each, [row][k].
};

/// What threads of a warpgroup have to agree on.
struct ProductOperands {
  u64 a_descriptor = 0, b_descriptor = 0;
  bool accumulates = false;  // scale-d.
  bool operator==(const ProductOperands&) const = default;
};

/// A product that was issued, and not waited for.
struct PendingProduct {
  const Product* product = nullptr;
  ProductOperands operands;
  u32 group = 0;
  bool landed = false;
  u64 a_checksum = 0, b_checksum = 0;  // At the issue, if checked.
};

/// A register, as far as products go.
struct RegisterUse {
  const Product* product = nullptr;  // The last that used it.
  u32 position = 0;                  // Among its accumulators.
  bool is_accumulator = false;       // Else A.
  u32 busy_until = 0;                // That many groups have to be complete.
  u32 written = 0, read = 0;         // By ordinary instructions: after how many wgmma.fence.
};

/// An instruction that all warps of a warpgroup execute, in order.
struct WarpgroupStep {
  const Op* op = nullptr;
  ProductOperands operands;
  u32 warp = 0;       // Who was the first.
  u32 num_warps = 0;  // That have executed it.
};

struct Products {
  u32 open_group = 0;
  u32 num_complete = 0;  // Groups.
  u32 num_fences = 0;
  std::vector<PendingProduct> pending;  // In order of issue.
  std::vector<RegisterUse> registers;   // By number, from the first wgmma.fence on, if checked.

  u64 num_steps = 0;  // Of the warpgroup's, executed by this warp.
  // Of a warpgroup's first warp: the steps that not all four have executed.
  std::deque<WarpgroupStep> steps;
  u64 num_common_steps = 0;  // Before those.
};

// ---- What the instructions do, all lanes together

void issue_product(Warp& warp, const Product& product);
void fence_products(Warp& warp);
void commit_products(Warp& warp);
/// Until at most `num_pending` groups are.
void wait_for_products(Warp& warp, u32 num_pending);

// ---- Checks

/// Before any instruction, where Options::check is set: fails if it touches a register of a product
/// that was not waited for; remembers what it reads and writes.
void check_registers(Warp& warp, const Op& op);
/// At exit: fails if a product was not waited for, or other warps of the warpgroup go on with
/// theirs.
void check_exit(Warp& warp);

}  // namespace ptxsim
