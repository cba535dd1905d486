// SPDX-License-Identifier: Apache-2.0
#include "products.h"

#include <algorithm>
#include <string>

#include "half.h"
#include "state.h"

namespace ptxsim {
namespace {

constexpr u32 kWarpgroupWarps = 4;
constexpr u32 kMaxAccumulators = kMaxTileColumns / 2;

u32 rank_in_warpgroup(const Warp& warp) { return warp.id % kWarpgroupWarps; }

// ---- Arithmetic --------------------------------------------------------------------------------

/// 32-bit registers outside the register file, for the sums of products with f16 accumulators.
struct Sums {
  alignas(64) float values[kMaxAccumulators][kWarpSize];
  u32 offsets[kMaxAccumulators];
  Sums() {
    for (u32 i = 0; i < kMaxAccumulators; ++i) offsets[i] = i * sizeof values[0];
  }
};

/// Register i holds column pairs: those of the sums' registers 4 (i / 2) + 2 (i % 2) and the next
/// one.
void add_to_f16(Warp& warp, const PendingProduct& pending, const Sums& sums) {
  const Product& product = *pending.product;
  for (u32 i = 0; i < product.accumulators.size(); ++i) {
    F16x2* const pairs = warp.lanes<F16x2>(product.accumulators[i]);
    const u32 first = 4 * (i / 2) + 2 * (i % 2);
    for (u32 lane = 0; lane < kWarpSize; ++lane) {
      const F16x2 old = pending.operands.accumulates ? pairs[lane] : F16x2{};
      const float low = sums.values[first][lane] + old.low.value();
      const float high = sums.values[first + 1][lane] + old.high.value();
      pairs[lane] = {F16::nearest(low), F16::nearest(high)};
    }
  }
}

SharedOperand operand_a(Warp& warp, const Product& product, u64 descriptor) {
  return {warp,
          descriptor,
          {.is_mn_major = product.a_is_mn_major,
           .first_mn = kTileRows * rank_in_warpgroup(warp),
           .num_mn = kTileRows}};
}
SharedOperand operand_b(Warp& warp, const Product& product, u64 descriptor) {
  return {warp, descriptor, {.is_mn_major = product.b_is_mn_major, .num_mn = product.num_columns}};
}

/// Loads A as [k][row].
void load_a(Warp& warp, const PendingProduct& pending, const MultiplyKernels& kernels, float* a) {
  const Product& product = *pending.product;
  alignas(64) float by_rows[kTileRows * kTileK];
  if (product.a_in_registers) {
    kernels.convert(warp.registers, product.a_chunks, product.element, by_rows);
    kernels.transpose(by_rows, a);
  } else {
    const SharedOperand operand = operand_a(warp, product, pending.operands.a_descriptor);
    const bool is_row_major = !product.a_is_mn_major;
    kernels.convert(operand.base(), operand.places().chunks, product.element,
                    is_row_major ? by_rows : a);
    if (is_row_major) kernels.transpose(by_rows, a);
  }
  if (product.negates) {
    for (u32 i = 0; i < kTileRows * kTileK; ++i) a[i] = -a[i];
  }
}

void compute(Warp& warp, const PendingProduct& pending) {
  const Product& product = *pending.product;
  const MultiplyKernels& kernels = multiply_kernels().front();
  alignas(64) float a[kTileRows * kTileK];
  alignas(64) float b[kTileK * kMaxTileColumns];
  load_a(warp, pending, kernels, a);
  const SharedOperand operand = operand_b(warp, product, pending.operands.b_descriptor);
  kernels.convert(operand.base(), operand.places().chunks, product.element, b);
  TileProduct tile{.a = a,
                   .b = b,
                   .b_is_mn_major = product.b_is_mn_major,
                   .num_columns = product.num_columns,
                   .accumulates = pending.operands.accumulates,
                   .c = {warp.registers, product.accumulator_offsets.data()},
                   .d = {warp.registers, product.accumulator_offsets.data()}};
  if (!product.accumulators_are_f16) return kernels.multiply(tile);
  static thread_local Sums sums;
  tile.accumulates = false;
  tile.d = {reinterpret_cast<u8*>(sums.values), sums.offsets};
  kernels.multiply(tile);
  add_to_f16(warp, pending, sums);
}

void land(Warp& warp, PendingProduct& pending) {
  if (pending.landed) return;
  pending.landed = true;
  compute(warp, pending);
}

// ---- Warpgroups --------------------------------------------------------------------------------

Warp& first_of_warpgroup(Warp& warp) {
  return warp.block->warps[warp.id - rank_in_warpgroup(warp)];
}

[[noreturn]] void fail_incomplete(const Warp& warp, const Warp& other) {
  fail(warp, "the warpgroup is not complete: threads of warp " + std::to_string(other.id) +
                 " do not exist or have exited");
}

/// Fails if another warp can never execute this warp's next step.
void check_others_live(Warp& warp) {
  const Warp* const first = &first_of_warpgroup(warp);
  for (const Warp* other = first; other < first + kWarpgroupWarps; ++other) {
    const bool was_here = other->products.num_steps > warp.products.num_steps;
    if (other->alive != kAllLanes && !was_here) fail_incomplete(warp, *other);
  }
}

/// .aligned: all threads of the warpgroup must execute the same instruction (and product).
void check_step(Warp& warp, const ProductOperands& operands) {
  check_others_live(warp);
  Products& common = first_of_warpgroup(warp).products;
  const u64 i = warp.products.num_steps++ - common.num_common_steps;
  if (i == common.steps.size()) common.steps.push_back({warp.op, operands, warp.id, 0});
  WarpgroupStep& step = common.steps[i];
  const auto fail_differing = [&](const std::string& what) {
    fail(warp, what + " warp " + std::to_string(step.warp) + " of its warpgroup (line " +
                   std::to_string(step.op->source->line) + ")");
  };
  if (step.op != warp.op) fail_differing("not the wgmma instruction that comes next for");
  if (step.operands.accumulates != operands.accumulates) {
    fail_differing("scale-d differs from that of");
  }
  if (step.operands != operands) fail_differing("a matrix descriptor differs from that of");
  if (++step.num_warps == kWarpgroupWarps) {
    common.steps.pop_front();
    ++common.num_common_steps;
  }
}

void check_warpgroup(const Warp& warp) {
  const Block& block = *warp.block;
  const u32 first = warp.id - rank_in_warpgroup(warp);
  if (first + kWarpgroupWarps > block.warps.size()) {
    fail(warp, "the warpgroup of warps " + std::to_string(first) + " to " +
                   std::to_string(first + kWarpgroupWarps - 1) +
                   " is not complete: the block has " + std::to_string(block.warps.size()) +
                   " warps");
  }
  if (warp.alive != kAllLanes) fail_incomplete(warp, warp);
}

// ---- Registers ---------------------------------------------------------------------------------

[[noreturn]] void fail_busy(const Warp& warp, const RegisterUse& use, const char* verb) {
  const std::string what = use.is_accumulator ? "an accumulator" : "a register of A";
  fail(warp, std::string(verb) + " " + what + " of the wgmma at line " +
                 std::to_string(use.product->line) + ", whose group was not waited for");
}

/// @return whether products in flight may share the register: both use it as the same accumulator
/// of the same shape.
bool may_share(const RegisterUse& use, const Product& product, u32 position) {
  return use.is_accumulator && use.position == position &&
         use.product->num_columns == product.num_columns &&
         use.product->accumulators_are_f16 == product.accumulators_are_f16;
}

void check_accumulator(Warp& warp, const Product& product, u32 i, bool accumulates) {
  Products& products = warp.products;
  const Reg reg = product.accumulators[i];
  RegisterUse& use = products.registers[reg.number];
  if (use.busy_until > products.num_complete && !may_share(use, product, i)) {
    fail_busy(warp, use, "accumulates in what is, in another shape or place,");
  }
  if (use.written == products.num_fences) {
    fail(warp, "no wgmma.fence since an accumulator was written");
  }
  if (use.read == products.num_fences) {
    fail(warp, "no wgmma.fence since an accumulator was read");
  }
  const u32 undefined = ~warp.defined[reg.number];
  if (accumulates && undefined != 0) {
    fail(warp, "scale-d is true, and an accumulator was never written", undefined);
  }
  warp.defined[reg.number] = kAllLanes;
  use.product = &product;
  use.position = i;
  use.is_accumulator = true;
  use.busy_until = products.open_group + 1;
}

void check_a(Warp& warp, const Product& product, const Reg reg) {
  Products& products = warp.products;
  RegisterUse& use = products.registers[reg.number];
  const bool is_busy = use.busy_until > products.num_complete;
  if (is_busy && use.is_accumulator) fail_busy(warp, use, "its A is");
  if (use.written == products.num_fences) {
    fail(warp, "no wgmma.fence since a register of A was written");
  }
  const u32 undefined = ~warp.defined[reg.number];
  if (undefined != 0) fail(warp, "a register of A was never written", undefined);
  use.product = &product;
  use.is_accumulator = false;
  use.busy_until = products.open_group + 1;
}

void check_defined(const Warp& warp, const Reg reg, const char* what) {
  const u32 undefined = ~warp.defined[reg.number];
  if (undefined != 0) fail(warp, std::string(what) + " was never written", undefined);
}

void check_issue(Warp& warp, const Product& product, const ProductOperands& operands) {
  check_step(warp, operands);
  if (warp.products.num_fences == 0) fail(warp, "no wgmma.fence before the first wgmma");
  for (const Reg reg : product.a) check_a(warp, product, reg);
  for (u32 i = 0; i < product.accumulators.size(); ++i) {
    check_accumulator(warp, product, i, operands.accumulates);
  }
}

// ---- Operands ----------------------------------------------------------------------------------

u64 uniform_descriptor(Warp& warp, const Reg reg, const char* what) {
  const u64* const values = warp.lanes<u64>(reg);
  u64 difference = 0;
  for (u32 lane = 1; lane < kWarpSize; ++lane) difference |= values[lane] ^ values[0];
  if (difference != 0) fail(warp, std::string("lanes differ in the descriptor of ") + what);
  return values[0];
}

ProductOperands operands_of(Warp& warp, const Product& product) {
  if (options().check) {
    check_defined(warp, product.b_descriptor, "the descriptor of B");
    check_defined(warp, product.scale_d, "scale-d");
    if (!product.a_in_registers) check_defined(warp, product.a_descriptor, "the descriptor of A");
  }
  const u32 scale_d = warp.predicate(product.scale_d);
  if (scale_d != 0 && scale_d != kAllLanes) fail(warp, "lanes differ in scale-d", scale_d);
  return {product.a_in_registers ? 0 : uniform_descriptor(warp, product.a_descriptor, "A"),
          uniform_descriptor(warp, product.b_descriptor, "B"),
          (scale_d != 0) != product.scale_d_negated};
}

/// Checks that the proxies allow reading the operands, and records their contents.
void check_shared_operands(Warp& warp, PendingProduct& pending) {
  const Product& product = *pending.product;
  if (!product.a_in_registers) {
    const SharedOperand a = operand_a(warp, product, pending.operands.a_descriptor);
    a.check_proxies(warp);
    pending.a_checksum = a.checksum();
  }
  const SharedOperand b = operand_b(warp, product, pending.operands.b_descriptor);
  b.check_proxies(warp);
  pending.b_checksum = b.checksum();
}

void check_unchanged(Warp& warp, const PendingProduct& pending) {
  const Product& product = *pending.product;
  const auto fail_changed = [&](const char* what) {
    fail(warp, std::string(what) + " of the wgmma at line " +
                   std::to_string(pending.product->line) +
                   " changed in shared memory before this warp waited for its group");
  };
  if (!product.a_in_registers) {
    const SharedOperand a = operand_a(warp, product, pending.operands.a_descriptor);
    if (a.checksum() != pending.a_checksum) fail_changed("A");
  }
  const SharedOperand b = operand_b(warp, product, pending.operands.b_descriptor);
  if (b.checksum() != pending.b_checksum) fail_changed("B");
}

bool lands_at_issue(Warp& warp) {
  switch (options().landing) {
    case Landing::kAtOnce:
      return true;
    case Landing::kLate:
      return false;
    case Landing::kRandom:
      return (warp.cluster->random() & 1) != 0;
  }
  return true;
}

}  // namespace

// ---- Instructions ------------------------------------------------------------------------------

void issue_product(Warp& warp, const Product& product) {
  Products& products = warp.products;
  check_warpgroup(warp);
  PendingProduct& pending = products.pending.emplace_back();
  pending.product = &product;
  pending.operands = operands_of(warp, product);
  pending.group = products.open_group;
  if (options().check) {
    check_issue(warp, product, pending.operands);
    check_shared_operands(warp, pending);
  }
  if (options().count) {
    warp.cluster->counts->wgmma_flops += u64{2} * kTileRows * kTileK * product.num_columns;
  }
  if (!lands_at_issue(warp)) return;
  for (PendingProduct& each : products.pending) land(warp, each);
}

void fence_products(Warp& warp) {
  Products& products = warp.products;
  check_warpgroup(warp);
  if (options().check) {
    check_step(warp, {});
    products.registers.resize(warp.kernel->function->num_registers);
  }
  ++products.num_fences;
}

void commit_products(Warp& warp) {
  check_warpgroup(warp);
  if (options().check) check_step(warp, {});
  ++warp.products.open_group;
}

void wait_for_products(Warp& warp, u32 num_pending) {
  Products& products = warp.products;
  check_warpgroup(warp);
  if (options().check) check_step(warp, {});
  if (products.open_group <= num_pending) return;
  const u32 num_complete = products.open_group - num_pending;
  std::vector<PendingProduct>& pending = products.pending;
  const auto end = std::find_if(pending.begin(), pending.end(), [&](const PendingProduct& each) {
    return each.group >= num_complete;
  });
  for (auto each = pending.begin(); each != end; ++each) {
    if (options().check) check_unchanged(warp, *each);
    land(warp, *each);
  }
  pending.erase(pending.begin(), end);
  products.num_complete = std::max(products.num_complete, num_complete);
}

// ---- Checks of other instructions --------------------------------------------------------------

void check_registers(Warp& warp, const Op& op) {
  Products& products = warp.products;
  if (products.registers.empty() || op.is_product) return;
  for (const u32 reg : op.reads) {
    RegisterUse& use = products.registers[reg];
    if (use.busy_until > products.num_complete) fail_busy(warp, use, "reads");
    use.read = products.num_fences;
  }
  for (const u32 reg : op.writes) {
    RegisterUse& use = products.registers[reg];
    if (use.busy_until > products.num_complete) fail_busy(warp, use, "writes");
    use.written = products.num_fences;
  }
}

void check_exit(Warp& warp) {
  const Products& products = warp.products;
  if (!products.pending.empty()) {
    fail(warp, "exits before the wgmma at line " +
                   std::to_string(products.pending.front().product->line) + " was waited for");
  }
  const Products& common = first_of_warpgroup(warp).products;
  if (products.num_steps < common.num_common_steps + common.steps.size()) {
    const WarpgroupStep& step = common.steps[products.num_steps - common.num_common_steps];
    fail(warp, "exits without the wgmma instruction at line " +
                   std::to_string(step.op->source->line) + ", which warp " +
                   std::to_string(step.warp) + " of its warpgroup executed");
  }
}

}  // namespace ptxsim
