// Branches, returns and calls: what each lane does, whatever path it takes.
// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <sstream>

#include "run_ptx.h"
#include "test.h"

namespace {

using namespace ptxsim;
using namespace ptxsim::test;

Values lane_numbers() {
  Values values(kWarpSize);
  for (u64 lane = 0; lane < kWarpSize; ++lane) values[lane] = lane;
  return values;
}

void test_branches() {
  // Lanes diverge, and meet again.
  const Values parted = run_ptx({.body = R"(
      .reg .pred %p;
      setp.lt.u32 %p, %tid, 10;
      @%p bra LOW;
      mov.b64 %out0, 7;
      bra.uni DONE;
    LOW:
      mov.b64 %out0, 5;
    DONE:
      add.u64 %out0, %out0, 100;)"})[0];
  for (u32 lane = 0; lane < kWarpSize; ++lane) CHECK(parted[lane] == (lane < 10 ? 105 : 107), lane);

  // A loop that each lane leaves at its own time; it sums 1 to the lane's number.
  const Values sums = run_ptx({.body = R"(
      .reg .pred %p;
      .reg .b64 %i;
      mov.b64 %out0, 0;
      mov.b64 %i, %in0;
    NEXT:
      setp.eq.u64 %p, %i, 0;
      @%p bra DONE;
      add.u64 %out0, %out0, %i;
      sub.u64 %i, %i, 1;
      bra NEXT;
    DONE:)",
                               .inputs = {lane_numbers()}})[0];
  for (u64 lane = 0; lane < kWarpSize; ++lane) CHECK(sums[lane] == lane * (lane + 1) / 2, lane);

  // Nested loops with a negated guard.
  const Values products = run_ptx({.body = R"(
      .reg .pred %p;
      .reg .b64 %i, %j;
      mov.b64 %out0, 0;
      mov.b64 %i, 0;
    OUTER:
      mov.b64 %j, 0;
    INNER:
      add.u64 %out0, %out0, 1;
      add.u64 %j, %j, 1;
      setp.gt.u64 %p, %j, %in0;
      @!%p bra INNER;
      add.u64 %i, %i, 1;
      setp.gt.u64 %p, %i, %in0;
      @!%p bra OUTER;)",
                                   .inputs = {lane_numbers()}})[0];
  for (u64 n = 0; n < kWarpSize; ++n) CHECK(products[n] == (n + 1) * (n + 1), n);
}

std::string table_branch(const std::string& guard, const std::string& opcode) {
  return R"(
      .reg .pred %p;
      .reg .b32 %i;
      and.b32 %i, %tid, 3;
      setp.lt.u32 %p, %tid, 16;
      mov.b64 %out0, 1000;
    TABLE: .branchtargets ONE, TWO, THREE;
      setp.eq.u32 %p, %i, 3;
      @%p mov.b32 %i, 1;
      setp.lt.u32 %p, %tid, 16;
      )" +
         guard + opcode + R"( %i, TABLE;
      bra DONE;
    ONE:
      mov.b64 %out0, 1;
      bra DONE;
    TWO:
      mov.b64 %out0, 2;
      bra DONE;
    THREE:
      mov.b64 %out0, 3;
    DONE:)";
}

void test_tables() {
  const u64 by_index[] = {1, 2, 3, 2};
  for (const char* const opcode : {"brx.idx", "brx.idx.uni"}) {
    const Values all = run_ptx({.body = table_branch("", opcode)})[0];
    const Values some = run_ptx({.body = table_branch("@%p ", opcode)})[0];
    for (u32 lane = 0; lane < kWarpSize; ++lane) {
      CHECK(all[lane] == by_index[lane % 4], lane);
      CHECK(some[lane] == (lane < 16 ? by_index[lane % 4] : 1000), lane);
    }
  }
  CHECK_ERROR(run_ptx({.body = R"(
      TABLE: .branchtargets ONE;
        brx.idx %tid, TABLE;
      ONE:
        mov.b64 %out0, 0;)"}),
              "brx.idx to entry 1 of 1", "lanes 1-31", "brx.idx %tid, TABLE");
}

void test_exits() {
  for (const char* const opcode : {"ret", "ret.uni", "exit"}) {
    const Values values = run_ptx({.body = std::string(R"(
        .reg .pred %p;
        mov.b64 %out0, 9;
        setp.lt.u32 %p, %tid, 5;
        @%p )") + opcode + ";"})[0];
    // Lanes that have exited store nothing: their words stay zero, as the test set them.
    for (u32 lane = 0; lane < kWarpSize; ++lane) CHECK(values[lane] == (lane < 5 ? 0 : 9), opcode);
  }
  CHECK_ERROR(run_ptx({.body = "mov.b64 %out0, 0;\n.reg .pred %p;\nsetp.eq.u32 %p, %tid, 3;\n"
                               "@%p trap;"}),
              "trap", "lanes 3\n", "warp 0", "block (0, 0, 0)");
  // Lanes that do not reach it do not fail.
  CHECK(error_of([] {
          run_ptx({.body = "mov.b64 %out0, 0;\n.reg .pred %p;\nsetp.eq.u32 %p, %tid, 32;\n"
                           "@%p trap;"});
        }).empty());
}

void test_no_effect() {
  Counts counts;
  const Values values = run_ptx({.body = R"(
      griddepcontrol.wait;
      mov.b64 %out0, 3;
      pmevent 7;
      pmevent.mask 0x80;
      nanosleep.u32 100;
      griddepcontrol.launch_dependents;)"},
                                &counts)[0];
  CHECK(values == Values(kWarpSize, 3));
  CHECK(counts.polls_failed == 0);
}

constexpr const char* kPrintDeclarations = R"(
  .extern .func (.param .b32 result) vprintf (.param .b64 format, .param .b64 arguments);
  .extern .func __assertfail (.param .b64 message, .param .b64 file, .param .b32 line,
                              .param .b64 function, .param .b64 size);
  .global .align 1 .b8 text[26] = {37, 53, 100, 124, 37, 108, 108, 120, 124, 37, 46, 51, 102, 124,
                                   37, 115, 124, 37, 45, 42, 117, 124, 37, 37, 10, 0};
  .global .align 1 .b8 word[4] = {97, 98, 99, 0};
)";

/// Returns what `body` writes to standard output.
template <class F>
std::string output_of(F body) {
  std::fflush(stdout);
  const std::string path = "/tmp/ptxsim_output_" + std::to_string(getpid());
  const int saved = dup(STDOUT_FILENO);
  if (std::freopen(path.c_str(), "w", stdout) == nullptr) return "not opened";
  body();
  std::fflush(stdout);
  dup2(saved, STDOUT_FILENO);
  close(saved);
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  std::remove(path.c_str());
  return text.str();
}

void test_calls() {
  // "%5d|%llx|%.3f|%s|%-*u|%%
  // " with -42, 0xdeadbeef01, 1.5, "abc", 4, 7.
  const std::string print = R"(
      .local .align 8 .b8 packed[48];
      .reg .b32 %count;
      .reg .b64 %at_text, %at_packed, %at_word;
      .reg .pred %p;
      mov.u64 %at_packed, packed;
      st.local.u32 [packed], -42;
      st.local.u64 [packed+8], 0xdeadbeef01;
      st.local.f64 [packed+16], 0d3FF8000000000000;
      mov.u64 %at_word, word;
      st.local.u64 [packed+24], %at_word;
      st.local.u32 [packed+32], 4;
      st.local.u32 [packed+36], 7;
      mov.u64 %at_text, text;
      cvta.local.u64 %at_packed, %at_packed;
      setp.eq.u32 %p, %tid, 1;
      mov.b64 %out0, 0;
      @!%p bra DONE;
      { .param .b64 a; .param .b64 b; .param .b32 r;
        st.param.b64 [a], %at_text;
        st.param.b64 [b], %at_packed;
        call.uni (r), vprintf, (a, b);
        ld.param.b32 %count, [r];
      }
      cvt.s64.s32 %out0, %count;
    DONE:)";
  Values counts;
  const std::string text =
      output_of([&] { counts = run_ptx({.body = print, .module = kPrintDeclarations})[0]; });
  CHECK(text == "  -42|deadbeef01|1.500|abc|7   |%\n", text);
  CHECK(counts[0] == 0 && counts[1] == 6, counts[1]);

  CHECK_ERROR(run_ptx({.body = R"(
      .reg .b64 %at_word;
      mov.b64 %out0, 0;
      mov.u64 %at_word, word;
      { .param .b64 a; .param .b64 b; .param .b32 c; .param .b64 d; .param .b64 e;
        st.param.b64 [a], %at_word;
        st.param.b64 [b], %at_word;
        st.param.b32 [c], 12;
        st.param.b64 [d], %at_word;
        st.param.b64 [e], 1;
        call.uni __assertfail, (a, b, c, d, e);
      })",
                       .module = kPrintDeclarations}),
              "assertion failed: abc, abc:12, abc", "lanes 0-31");
  CHECK_ERROR(run_ptx({.body = "{ .param .b64 a; call other, (a); }",
                       .module = ".extern .func other (.param .b64 x);"}),
              "other", "not known here", "PTX line");
}

}  // namespace

int main() {
  test_branches();
  test_tables();
  test_exits();
  test_no_effect();
  test_calls();
  CHECK_FORMS("bra", "brx", "call", "ret", "exit", "nanosleep", "pmevent", "griddepcontrol");
  return finish();
}
