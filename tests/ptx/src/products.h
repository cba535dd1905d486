// wgmma in flight (section 9.7.15): between its issue and the wait for its group, its registers and
// its operands in shared memory must not be touched.
//
// Each warp computes its 16 of the warpgroup's 64 rows, at the issue or at the wait
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

/// A decoded wgmma.mma_async.
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

  std::vector<u32> accumulator_offsets;  // Offsets in the register file.
  std::vector<u32> a_chunks;             // Eight elements each, [row][k].
};

/// What the threads of a warpgroup must agree on.
struct ProductOperands {
  u64 a_descriptor = 0, b_descriptor = 0;
  bool accumulates = false;  // scale-d.
  bool operator==(const ProductOperands&) const = default;
};

/// A product that was issued but not waited for.
struct PendingProduct {
  const Product* product = nullptr;
  ProductOperands operands;
  u32 group = 0;
  bool landed = false;
  u64 a_checksum = 0, b_checksum = 0;  // Taken at the issue, if checked.
};

/// A register's use by products.
struct RegisterUse {
  const Product* product = nullptr;  // The last product that used it.
  u32 position = 0;                  // Among its accumulators.
  bool is_accumulator = false;       // Otherwise part of A.
  u32 busy_until = 0;                // The number of groups that must be complete before.
  u32 written = 0, read = 0;         // By ordinary instructions: the count of wgmma.fence then.
};

/// An instruction that all warps of a warpgroup must execute, in order.
struct WarpgroupStep {
  const Op* op = nullptr;
  ProductOperands operands;
  u32 warp = 0;       // The first to execute it.
  u32 num_warps = 0;  // Warps that have executed it.
};

struct Products {
  u32 open_group = 0;
  u32 num_complete = 0;  // Groups.
  u32 num_fences = 0;
  std::vector<PendingProduct> pending;  // In order of issue.
  std::vector<RegisterUse> registers;   // By number, from the first wgmma.fence on, if checked.

  u64 num_steps = 0;  // Steps of the warpgroup that this warp has executed.
  // In a warpgroup's first warp: the steps that not all four warps have executed.
  std::deque<WarpgroupStep> steps;
  u64 num_common_steps = 0;  // Number of steps before those.
};

// ---- What the instructions do, all lanes together

void issue_product(Warp& warp, const Product& product);
void fence_products(Warp& warp);
void commit_products(Warp& warp);
/// Waits until at most `num_pending` groups are pending.
void wait_for_products(Warp& warp, u32 num_pending);

// ---- Checks

/// Called before any instruction if Options::check is set: fails if it touches a register of a
/// product that was not waited for; records what it reads and writes.
void check_registers(Warp& warp, const Op& op);
/// Called at exit: fails if a product was not waited for, or if other warps of the warpgroup go on
/// with theirs.
void check_exit(Warp& warp);

}  // namespace ptxsim
