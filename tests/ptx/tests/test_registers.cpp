// Reports registers that were never written.
// SPDX-License-Identifier: Apache-2.0
#include "run_ptx.h"
#include "test.h"

namespace {

using namespace ptxsim;
using namespace ptxsim::test;

constexpr const char* kRegisters = ".reg .b32 %a, %b, %c;\n.reg .b64 %w;\n.reg .pred %p, %q;\n";

std::string error_of_body(const std::string& body) {
  return error_of([&] { run_ptx({.body = kRegisters + body + "\nmov.b64 %out0, 0;"}); });
}

void test_reads() {
  const std::string plain = error_of_body("add.u32 %a, %b, 1;");
  CHECK(contains(plain, {"reads a register that was never written", "lanes 0-31",
                         "add.u32 %a, %b, 1", "PTX line", "program", "warp 0"}),
        plain);
  CHECK(error_of_body("mov.b32 %b, 5;\nadd.u32 %a, %b, 1;").empty());
  // Tracked per lane.
  const std::string some =
      error_of_body("setp.lt.u32 %p, %tid, 20;\n@%p mov.b32 %b, 5;\nadd.u32 %a, %b, 1;");
  CHECK(contains(some, {"never written", "lanes 20-31"}), some);
  CHECK(error_of_body("setp.lt.u32 %p, %tid, 20;\n@%p mov.b32 %b, 5;\n@%p add.u32 %a, %b, 1;")
            .empty());
  // Addresses, stored values, predicates, guards, votes, and warp-wide instructions.
  for (const char* const body :
       {"ld.global.b64 %w, [%w];", "st.global.b32 [%to], %a;", "and.pred %p, %q, %q;",
        "shfl.sync.idx.b32 %a, %b, 0, 31, -1;", "vote.sync.any.pred %p, %q, -1;",
        "bar.red.popc.u32 %a, 0, %p;", "bar.sync %a;", "bar.warp.sync %a;"}) {
    const std::string text = error_of_body(body);
    CHECK(contains(text, {"reads a register that was never written"}), body, text);
  }
  const std::string guard = error_of_body("@%p mov.b32 %a, 5;");
  CHECK(contains(guard, {"its guard was never written", "lanes 0-31"}), guard);
  const std::string branch = error_of_body("@%p bra DONE;\nDONE:");
  CHECK(contains(branch, {"its guard was never written"}), branch);
}

void test_writes() {
  // Results of warp-wide instructions, barriers and loads count as written.
  CHECK(error_of_body("mov.b32 %a, 1;\nshfl.sync.idx.b32 %b|%p, %a, 0, 31, -1;\n"
                      "@%p add.u32 %c, %b, 1;\nbar.red.or.pred %q, 0, %p;\n"
                      "@%q bar.red.popc.u32 %c, 0, %p;\nadd.u32 %c, %c, 1;")
            .empty());
  const std::string parts = error_of_body(
      "setp.lt.u32 %p, %tid, 16;\nmov.b32 %a, 1;\n@%p redux.sync.add.u32 %b, %a, 0xffff;\n"
      "add.u32 %c, %b, 1;");
  CHECK(contains(parts, {"never written", "lanes 16-31"}), parts);
}

void test_copies() {
  // A copy of an undefined value is undefined: the error is where it is used.
  CHECK(error_of_body("mov.b32 %a, %b;").empty());
  const std::string used = error_of_body("mov.b32 %a, %b;\nadd.u32 %c, %a, 1;");
  CHECK(contains(used, {"never written", "add.u32 %c, %a, 1"}), used);
  const std::string overwritten = error_of_body(
      "mov.b32 %a, 1;\nsetp.lt.u32 %p, %tid, 3;\n@%p mov.b32 %a, %b;\n"
      "add.u32 %c, %a, 1;");
  CHECK(contains(overwritten, {"never written", "lanes 0-2\n"}), overwritten);
  CHECK(error_of_body("mov.b32 %a, %b;\nmov.b32 %a, 1;\nadd.u32 %c, %a, 1;").empty());
}

void test_selections() {
  const std::string first = "mov.b32 %c, 1;\nsetp.eq.u32 %p, 0, 0;\n";
  CHECK(error_of_body(first + "selp.b32 %a, %c, %b, %p;\nadd.u32 %a, %a, 1;").empty());
  CHECK(error_of_body(first + "selp.b32 %a, %b, %c, !%p;\nadd.u32 %a, %a, 1;").empty());
  const std::string taken = error_of_body(first + "selp.b32 %a, %b, %c, %p;\nadd.u32 %a, %a, 1;");
  CHECK(contains(taken, {"never written", "add.u32 %a, %a, 1"}), taken);
  const std::string unknown = error_of_body(first + "selp.b32 %a, %c, %c, %q;");
  CHECK(contains(unknown, {"never written", "selp.b32"}), unknown);
}

void test_first_values() {
  CHECK(error_of_body("mov.u32 %a, %tid.x;\nmov.u32 %b, %laneid;\nadd.u32 %a, %a, %b;").empty());
  // A block inherits nothing from the block before.
  const std::string second = error_of([] {
    run_ptx({.body = std::string(kRegisters) +
                     "mov.u32 %a, %ctaid.x;\nsetp.eq.u32 %p, %a, 0;\n@%p mov.b32 %b, 1;\n"
                     "add.u32 %b, %b, 1;\nmov.b64 %out0, 0;",
             .grid = {2, 1, 1}});
  });
  CHECK(contains(second, {"never written", "block (1, 0, 0)"}), second);
}

void test_unchecked() {
  options().check = false;
  const Values out =
      run_ptx({.body = std::string(kRegisters) +
                       "mov.b64 %out0, 0;\nadd.u32 %a, %b, 0;\ncvt.u64.u32 %out0, %a;"})[0];
  options().check = true;
  CHECK(out == Values(kWarpSize, 0xa5a5a5a5));  // The poison.
}

}  // namespace

int main() {
  options().check = true;
  test_reads();
  test_writes();
  test_copies();
  test_selections();
  test_first_values();
  test_unchecked();
  return finish();
}
