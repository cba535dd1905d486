// What wgmma refuses: beside each program that is refused is one that is not.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "test.h"
#include "wgmma_program.h"

namespace {

using namespace ptxsim;
using namespace ptxsim::test;

/// A product of ones: each element grows by 16, starting from 0.
class Ones : public WgmmaProgram {
 public:
  explicit Ones(const WgmmaCase& product)
      : WgmmaProgram(product, std::vector<float>(64 * 16, 1), std::vector<float>(product.n * 16, 1),
                     std::vector<float>(64 * product.n, 0)) {}
};

/// The error of the lines after a set-up; empty if there is none.
std::string error_of_lines(const Ones& ones, const std::string& lines, u32 num_threads = 128) {
  return error_of([&] { const_cast<Ones&>(ones).run(ones.setup() + lines, num_threads); });
}

WgmmaCase with_a_in_registers() {
  WgmmaCase product;
  product.a_in_registers = true;
  return product;
}

#define CHECK_REFUSED(text, ...) CHECK(contains((text), {__VA_ARGS__}), (text))
#define CHECK_ALLOWED(text) CHECK((text).empty(), (text))

void test_accumulators_in_flight() {
  const Ones ones{WgmmaCase{}};
  const std::string issue = kWgmmaFence + ones.product() + kWgmmaCommit;
  const char* const read = "mov.b32 %v0, %d3;\n";
  const char* const write = "mov.b32 %d3, 0;\n";
  CHECK_ALLOWED(error_of_lines(ones, issue + kWgmmaWait + read + write));
  CHECK_REFUSED(error_of_lines(ones, issue + read + kWgmmaWait), "reads an accumulator",
                "was not waited for", "mov.b32 %v0, %d3");
  CHECK_REFUSED(error_of_lines(ones, issue + write + kWgmmaWait), "writes an accumulator");
  // Other registers may be used; loads and stores count as uses too.
  CHECK_ALLOWED(error_of_lines(ones, issue + "mov.b32 %v0, %v1;\n" + kWgmmaWait));
  CHECK_REFUSED(error_of_lines(ones, issue + ones.store() + kWgmmaWait), "reads an accumulator",
                "st.global");
  CHECK_REFUSED(
      error_of_lines(ones, kWgmmaFence + ones.product() + read + kWgmmaCommit + kWgmmaWait),
      "reads an accumulator");
  // A wait for all but one group does not cover the last group; a wait before the commit covers
  // nothing.
  const std::string one_left = "wgmma.wait_group.sync.aligned 1;\n";
  CHECK_REFUSED(error_of_lines(ones, issue + one_left + read + kWgmmaWait), "reads an accumulator");
  CHECK_ALLOWED(error_of_lines(ones, issue + kWgmmaCommit + one_left + read + kWgmmaWait));
  CHECK_REFUSED(
      error_of_lines(ones, issue + ones.product() + kWgmmaCommit + one_left + read + kWgmmaWait),
      "reads an accumulator");
  CHECK_REFUSED(error_of_lines(ones, kWgmmaFence + ones.product() + kWgmmaWait + read +
                                         kWgmmaCommit + kWgmmaWait),
                "reads an accumulator");
}

void test_a_in_flight() {
  const Ones ones{with_a_in_registers()};
  const std::string issue = kWgmmaFence + ones.product() + kWgmmaCommit;
  CHECK_ALLOWED(error_of_lines(ones, issue + kWgmmaWait + "mov.b32 %a1, %a2;\n"));
  CHECK_REFUSED(error_of_lines(ones, issue + "mov.b32 %a1, 0;\n" + kWgmmaWait),
                "writes a register of A");
  CHECK_REFUSED(error_of_lines(ones, issue + "mov.b32 %v0, %a1;\n" + kWgmmaWait),
                "reads a register of A");
  // Two products may read it.
  CHECK_ALLOWED(error_of_lines(
      ones, kWgmmaFence + ones.product() + ones.product() + kWgmmaCommit + kWgmmaWait));
}

void test_fences() {
  const Ones ones{with_a_in_registers()};
  const std::string rest = ones.product() + kWgmmaCommit + kWgmmaWait;
  CHECK_ALLOWED(error_of_lines(ones, kWgmmaFence + rest + rest));
  CHECK_REFUSED(error_of_lines(ones, rest), "no wgmma.fence before the first");
  const std::string writes_d = "mov.b32 %d2, 0;\n", writes_a = "mov.b32 %a2, 0;\n";
  const std::string reads_d = "mov.b32 %v0, %d2;\n", reads_a = "mov.b32 %v0, %a2;\n";
  CHECK_REFUSED(error_of_lines(ones, kWgmmaFence + writes_d + rest),
                "no wgmma.fence since an accumulator was written");
  CHECK_REFUSED(error_of_lines(ones, kWgmmaFence + writes_a + rest),
                "no wgmma.fence since a register of A was written");
  CHECK_REFUSED(error_of_lines(ones, kWgmmaFence + rest + reads_d + rest),
                "no wgmma.fence since an accumulator was read");
  CHECK_ALLOWED(error_of_lines(ones, kWgmmaFence + rest + reads_a + rest));  // Nobody writes it.
  CHECK_ALLOWED(error_of_lines(
      ones, kWgmmaFence + rest + writes_d + writes_a + reads_d + kWgmmaFence + rest));
}

/// Products in flight share registers.
void test_shared_registers() {
  WgmmaCase product;
  const Ones ones{product};
  const std::string line = ones.product();
  const std::string rest = kWgmmaCommit + kWgmmaWait;
  CHECK_ALLOWED(error_of_lines(ones, kWgmmaFence + line + kWgmmaCommit + line + rest));
  product.n = 8;  // Uses the first half of the same registers.
  const std::string narrow = Ones{product}.product();
  CHECK_REFUSED(error_of_lines(ones, kWgmmaFence + line + narrow + rest),
                "in another shape or place");
  CHECK_ALLOWED(error_of_lines(ones, kWgmmaFence + line + rest + narrow + rest));
  std::string turned = line;
  turned.replace(turned.find("%d0, %d1"), 8, "%d1, %d0");
  CHECK_REFUSED(error_of_lines(ones, kWgmmaFence + line + turned + rest),
                "in another shape or place");
  std::string from_registers = line;
  from_registers.replace(from_registers.find("%d0, %d1, %d2, %d3"), 18, "%v0, %v1, %v2, %v3");
  from_registers.replace(from_registers.find("%da"), 3, "{%d0, %d1, %d2, %d3}");
  from_registers.replace(from_registers.find("1, 1, 0, 0"), 10, "1, 1, 0");
  const std::string defines =
      "mov.b32 %v0, 0;\nmov.b32 %v1, 0;\nmov.b32 %v2, 0;\nmov.b32 %v3, 0;\n";
  // %d4 and up are in both.
  CHECK_REFUSED(error_of_lines(ones, defines + kWgmmaFence + line + from_registers + rest),
                "its A is", "an accumulator of the wgmma");
  CHECK_ALLOWED(error_of_lines(ones, defines + kWgmmaFence + line + rest + from_registers + rest));
}

void test_operands_change() {
  const Ones ones{WgmmaCase{}};
  const std::string issue = kWgmmaFence + ones.product() + kWgmmaCommit;
  // One warp writes after the others' issue, and then all wait.
  const auto overwrite = [](int offset) {
    return "setp.eq.u32 %q, %tid, 0;\n@%q st.shared.b16 [%base+" + std::to_string(offset) +
           "], 0;\nbar.sync 0;\n";
  };
  CHECK_ALLOWED(error_of_lines(ones, issue + kWgmmaWait + "bar.sync 0;\n" + overwrite(0)));
  CHECK_REFUSED(error_of_lines(ones, issue + "bar.sync 0;\n" + overwrite(0) + kWgmmaWait),
                "A of the", "changed in shared memory", "warp 0");
  // A's row 63 belongs to the last warp, and its first chunk is the row's eighth; B belongs to all
  // warps.
  CHECK_REFUSED(
      error_of_lines(ones, issue + "bar.sync 0;\n" + overwrite(63 * 128 + 112) + kWgmmaWait),
      "A of the", "warp 3");
  CHECK_REFUSED(error_of_lines(ones, issue + "bar.sync 0;\n" + overwrite(8192) + kWgmmaWait),
                "B of the");
  // Bytes that the product does not read: k from 16 on.
  CHECK_ALLOWED(error_of_lines(ones, issue + "bar.sync 0;\n" + overwrite(128 + 64) + kWgmmaWait));
}

void test_proxies() {
  const Ones ones{WgmmaCase{}};
  const auto error = [&](const std::string& between) {
    return error_of([&] {
      const_cast<Ones&>(ones).run(ones.declare() + ones.load() + between + ones.whole());
    });
  };
  CHECK_ALLOWED(error("fence.proxy.async;\nbar.sync 0;\n"));
  CHECK_REFUSED(error("bar.sync 0;\n"), "fence.proxy.async", "wgmma.mma_async");
  // One element of A or of B is written again.
  for (const u32 offset : {0u, 8192u}) {
    const std::string again = "ld.shared.b16 %h, [%base+" + std::to_string(offset) +
                              "];\nst.shared.b16 [%base+" + std::to_string(offset) + "], %h;\n";
    const std::string fenced = ".reg .b16 %h;\nfence.proxy.async;\nbar.sync 0;\n" + again;
    CHECK_REFUSED(error(fenced + "bar.sync 0;\n"), "fence.proxy.async", "wgmma.mma_async");
    CHECK_ALLOWED(error(fenced + "fence.proxy.async;\nbar.sync 0;\n"));
  }
}

void test_exit() {
  const Ones ones{WgmmaCase{}};
  const std::string issue = kWgmmaFence + ones.product();
  CHECK_ALLOWED(error_of_lines(ones, issue + kWgmmaCommit + kWgmmaWait + "ret;\n"));
  CHECK_REFUSED(error_of_lines(ones, issue + kWgmmaCommit + "ret;\n"), "exits before the wgmma");
  CHECK_REFUSED(error_of_lines(ones, issue + kWgmmaWait + "ret;\n"), "exits before the wgmma");
}

void test_uniform_operands() {
  const Ones ones{WgmmaCase{}};
  const std::string whole = ones.whole();
  const auto unless = [](const char* lanes, const std::string& line) {
    return "setp.eq.u32 %q, %tid, " + std::string(lanes) + ";\n@%q " + line + "\n";
  };
  CHECK_REFUSED(error_of_lines(ones, unless("5", "add.u64 %da, %da, 1;") + whole), "lanes differ",
                "descriptor of A");
  CHECK_REFUSED(error_of_lines(ones, unless("70", "add.u64 %db, %db, 1;") + whole), "lanes differ",
                "descriptor of B", "warp 2");
  CHECK_REFUSED(error_of_lines(ones, unless("9", "setp.ne.u32 %scale, 1, 1;") + whole),
                "lanes differ", "scale-d");
  // The same within a warp, but not within the warpgroup.
  const std::string warp = "shr.u32 %i, %tid, 5;\nsetp.eq.u32 %q, %i, 1;\n";
  CHECK_ALLOWED(error_of_lines(ones, warp + "@%q add.u64 %da, %da, 0;\n" + whole));
  CHECK_REFUSED(error_of_lines(ones, warp + "@%q add.u64 %da, %da, 2;\n" + whole),
                "a matrix descriptor differs from that of warp");
  CHECK_REFUSED(error_of_lines(ones, warp + "@%q setp.ne.u32 %scale, 1, 1;\n" + whole),
                "scale-d differs from that of warp");
}

void test_warpgroups() {
  const Ones ones{WgmmaCase{}};
  const std::string whole = ones.whole();
  const std::string warp = "shr.u32 %i, %tid, 5;\n";
  CHECK_REFUSED(error_of_lines(ones, whole, 96), "warpgroup", "not complete", "3 warps");
  CHECK_REFUSED(error_of_lines(ones, whole, 112), "warpgroup", "not complete", "warp 3");
  // Warps 2 to 5 are not a warpgroup; warps 4 to 7 are one.
  const std::string from_two = warp + "sub.u32 %i, %i, 2;\nsetp.gt.u32 %q, %i, 3;\n@%q bra DONE;\n";
  CHECK_REFUSED(error_of_lines(ones, from_two + whole + "DONE:\n", 256), "warpgroup");
  const std::string from_four = warp + "setp.lt.u32 %q, %i, 4;\n@%q bra DONE;\n";
  CHECK_ALLOWED(error_of_lines(ones, from_four + whole + "DONE:\n", 256));
  // All warps must execute the same instructions in the same order.
  const std::string parted = warp + "setp.eq.u32 %q, %i, 2;\n@%q bra OTHER;\n" + whole +
                             "bra DONE;\nOTHER:\n" + whole + "DONE:\n";
  CHECK_REFUSED(error_of_lines(ones, parted), "not the wgmma instruction that comes next for warp");
  const std::string left_out = warp + "setp.eq.u32 %q, %i, 2;\n@%q bra DONE;\n" + whole + "DONE:\n";
  CHECK_REFUSED(error_of_lines(ones, left_out), "warpgroup");
  // The lanes of one warp differ.
  CHECK_REFUSED(error_of_lines(ones, "setp.eq.u32 %q, %tid, 40;\n@%q exit;\n" + whole), "warp 1",
                "warpgroup");
}

void test_undefined() {
  WgmmaCase product = with_a_in_registers();
  const Ones ones{product};
  const auto error = [&](const char* left_out, const Ones& program) {
    std::string text = program.setup();
    const std::size_t at = text.find(left_out);
    text.erase(at, text.find(';', at) + 1 - at);
    return error_of([&] { const_cast<Ones&>(program).run(text + program.whole()); });
  };
  CHECK_REFUSED(error("ld.global.b32 %d5", ones), "scale-d is true", "never written");
  CHECK_REFUSED(error("ld.global.b32 %a1", ones), "a register of A was never written");
  CHECK_REFUSED(error("mov.b64 %db", ones), "the descriptor of B was never written");
  CHECK_REFUSED(error("setp.eq.u32 %scale", ones), "scale-d was never written");
  CHECK_REFUSED(error("mov.b64 %da", Ones{WgmmaCase{}}), "the descriptor of A was never written");
  CHECK_ALLOWED(error("mov.b64 %da", ones));
  product.accumulates = false;
  CHECK_ALLOWED(error("ld.global.b32 %d5", Ones{product}));
}

void test_descriptors() {
  const Ones ones{WgmmaCase{}};
  const auto changed = [&](const std::string& line) {
    return error_of_lines(ones, line + "\n" + ones.whole());
  };
  CHECK_REFUSED(changed("or.b64 %da, %da, 0x6000000000000;"), "base offset 3");
  CHECK_REFUSED(changed("or.b64 %db, %db, 0x8000;"), "bits outside of its fields");
  CHECK_REFUSED(changed("add.u64 %db, %db, 0x80;"), "outside of the block's");
  CHECK_REFUSED(changed("sub.u64 %da, %da, 0x40;"), "outside of the block's");
}

/// Without any check: products that land late read what should not have been overwritten.
void test_late_landing() {
  const Options before = options();
  options().check = false;
  Ones ones{with_a_in_registers()};
  const std::string issue = kWgmmaFence + ones.product() + kWgmmaCommit;
  const auto first_after = [&](const std::string& between) {
    return ones.run(ones.setup() + "mov.b32 %d0, 0;\n" + issue + between + kWgmmaWait +
                    ones.store())[0];
  };
  const std::string writes_a = "mov.b32 %a0, 0;\nmov.b32 %a2, 0;\n";
  const std::string writes_d = "mov.b32 %d0, 0;\n";
  const std::string writes_b = "bar.sync 0;\nst.shared.b16 [%base+8192], 0;\nbar.sync 0;\n";
  options().landing = Landing::kAtOnce;
  CHECK(first_after("") == 16);
  CHECK(first_after(writes_a) == 16);
  CHECK(first_after(writes_d) == 0);
  CHECK(first_after(writes_b) == 16);
  options().landing = Landing::kLate;
  CHECK(first_after("") == 16);
  CHECK(first_after(writes_a) == 0);
  CHECK(first_after(writes_d) == 16);
  CHECK(first_after(writes_b) == 15);
  options().landing = Landing::kRandom;
  bool saw_early = false, saw_late = false;
  for (u64 seed = 1; seed <= 64; ++seed) {
    options().seed = seed;
    const float value = first_after(writes_a);
    saw_early |= value == 16;
    saw_late |= value == 0;
  }
  CHECK(saw_early && saw_late, saw_early, saw_late);
  options() = before;
}

void test_text() {
  const Ones ones{with_a_in_registers()};
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string text = ones.whole();
    text.replace(text.find(from), from.size(), to);
    return error_of_lines(ones, text);
  };
  CHECK_REFUSED(replaced("m64n16k16", "m64n12k16"), "'.m64n12k16' is not known here");
  CHECK_REFUSED(replaced(".f32.bf16.bf16", ".f16.bf16.bf16"), "'.bf16' is not known here");
  CHECK_REFUSED(replaced(".f32.bf16.bf16", ".f32.tf32.tf32"), "'.tf32' is not known here");
  CHECK_REFUSED(replaced("{%d0, ", "{"), "8 accumulators expected, not of 7");
  CHECK_REFUSED(replaced("{%d0, ", "{%d1, "), "an accumulator is there twice");
  CHECK_REFUSED(replaced("{%d0, ", "{%a0, "), "both accumulator and A");
  CHECK_REFUSED(replaced("{%a0, ", "{"), "4 registers of A");
  CHECK_REFUSED(replaced(", 1, 1, 0;", ", 2, 1, 0;"), "must be 1 or -1");
  CHECK_REFUSED(replaced(", 1, 1, 0;", ", 1, 1, 2;"), "must be 0 or 1");
  CHECK_REFUSED(replaced(", 1, 1, 0;", ", 1, 1, 0, 0;"), "7 operands expected");
  CHECK_REFUSED(replaced("wait_group.sync.aligned 0", "wait_group.sync.aligned -1"), "negative");
  CHECK_REFUSED(replaced("%db", "%base"), "64 bits");
}

}  // namespace

int main() {
  test_accumulators_in_flight();
  test_a_in_flight();
  test_fences();
  test_shared_registers();
  test_operands_change();
  test_proxies();
  test_exit();
  test_uniform_operands();
  test_warpgroups();
  test_undefined();
  test_descriptors();
  test_late_landing();
  test_text();
  return finish();
}
