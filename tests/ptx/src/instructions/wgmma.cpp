// wgmma (section 9.7.15) of m64nNk16, f16 and bf16: decodes it; products.h executes it.
// SPDX-License-Identifier: Apache-2.0
#include <charconv>
#include <memory>
#include <set>
#include <string>

#include "instructions/instructions.h"
#include "instructions/warp_matrix.h"
#include "products.h"

namespace ptxsim {
namespace {

/// "m64n128k16": 128.
u32 columns_of(std::string_view shape) {
  u32 columns = 0;
  const std::string_view digits = shape.substr(shape.find('n') + 1);
  std::from_chars(digits.data(), digits.data() + digits.size(), columns);
  return columns;
}

/// An immediate that has one of two values; @return whether it is the second.
bool choice(const Decoder& decoder, std::size_t i, s64 first, s64 second) {
  const s64 value = decoder.immediate(i);
  if (value != first && value != second) {
    decoder.fail("operand " + std::to_string(i + 1) + " must be " + std::to_string(first) + " or " +
                 std::to_string(second) + ", not " + std::to_string(value));
  }
  return value == second;
}

void take_accumulators(Decoder& decoder, Product& product) {
  product.accumulators = write_vector(decoder, 0, 4);
  const u32 expected = product.num_columns / (product.accumulators_are_f16 ? 4 : 2);
  if (product.accumulators.size() != expected) {
    decoder.fail("a vector of " + std::to_string(expected) + " accumulators expected, not of " +
                 std::to_string(product.accumulators.size()));
  }
  for (const Reg reg : product.accumulators) product.accumulator_offsets.push_back(reg.offset);
  decoder.op().writes.clear();  // The product checks have their own rules for them.
}

void take_a(Decoder& decoder, Product& product) {
  product.a_in_registers = decoder.operand(1).kind == Operand::Kind::kVector;
  if (!product.a_in_registers) {
    product.a_descriptor = decoder.read(1, 8);
    return;
  }
  product.a = decoder.read_all(1, 4);
  if (product.a.size() != 4) decoder.fail("a vector of 4 registers of A expected");
  product.a_chunks = chunks_of_a(product.a);
}

/// No register may be written twice, or be both accumulator and A.
void check_distinct(const Decoder& decoder, const Product& product) {
  std::set<u32> numbers;
  for (const Reg reg : product.accumulators) {
    if (!numbers.insert(reg.number).second) decoder.fail("an accumulator is there twice");
  }
  for (const Reg reg : product.a) {
    if (numbers.contains(reg.number)) decoder.fail("a register is both accumulator and A");
  }
}

}  // namespace

void decode_wgmma(Decoder& decoder) {
  const auto product = std::make_shared<Product>();
  product->line = decoder.instruction().line;
  product->num_columns = columns_of(decoder.word(4));
  product->accumulators_are_f16 = decoder.word(5) == "f16";
  product->element = decoder.last_word() == "bf16" ? Element::kBf16 : Element::kF16;
  take_accumulators(decoder, *product);
  take_a(decoder, *product);
  check_distinct(decoder, *product);
  decoder.expect_operands(product->a_in_registers ? 7 : 8);
  product->b_descriptor = decoder.read(2, 8);
  const Predicate scale_d = decoder.read_predicate(3);
  product->scale_d = scale_d.reg;
  product->scale_d_negated = scale_d.negated;
  product->negates = choice(decoder, 4, 1, -1) != choice(decoder, 5, 1, -1);
  if (!product->a_in_registers) product->a_is_mn_major = choice(decoder, 6, 0, 1);
  product->b_is_mn_major = choice(decoder, product->a_in_registers ? 6 : 7, 0, 1);
  decoder.op().is_product = true;
  decoder.execute([product = std::shared_ptr<const Product>(product)](
                      Warp& warp, u32) { issue_product(warp, *product); },
                  Flow::kMeetWarp);
}

void decode_wgmma_fence(Decoder& decoder) {
  decoder.expect_operands(0);
  decoder.op().meets_warpgroup = true;
  decoder.execute([](Warp& warp, u32) { fence_products(warp); }, Flow::kMeetWarp);
}

void decode_wgmma_commit_group(Decoder& decoder) {
  decoder.expect_operands(0);
  decoder.execute([](Warp& warp, u32) { commit_products(warp); }, Flow::kMeetWarp);
}

void decode_wgmma_wait_group(Decoder& decoder) {
  decoder.expect_operands(1);
  const s64 count = decoder.immediate(0);
  if (count < 0) decoder.fail("a number of groups cannot be negative");
  decoder.op().meets_warpgroup = true;
  decoder.execute(
      [count](Warp& warp, u32) {
        wait_for_products(warp, static_cast<u32>(std::min(count, s64{UINT32_MAX})));
      },
      Flow::kMeetWarp);
}

}  // namespace ptxsim
