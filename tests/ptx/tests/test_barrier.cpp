// Where threads of a block or a cluster meet, and the registers that warps pass to each other.
// SPDX-License-Identifier: Apache-2.0
#include "device_memory.h"
#include "run_ptx.h"
#include "test.h"

namespace {

using namespace ptxsim;
using namespace ptxsim::test;

std::string error_of_body(const std::string& body, u32 num_threads,
                          const std::string& directives = "") {
  return error_of([&] {
    run_ptx({.body = "mov.b64 %out0, 0;\n" + body,
             .block = {num_threads, 1, 1},
             .directives = directives});
  });
}

/// Each thread passes its number through shared memory to the thread across the block, over
/// `barrier`.
bool exchanges(const std::string& barrier, u32 num_threads) {
  const Values out = run_ptx({.body = R"(
      .shared .align 4 .b8 words[4096];
      .reg .b32 %at, %other, %last, %value;
      .reg .pred %p;
      mov.u32 %at, words;
      mov.u32 %last, )" + std::to_string(num_threads - 1) +
                                      R"(;
      sub.u32 %last, %last, %tid;
      mad.lo.u32 %other, %last, 4, %at;
      mad.lo.u32 %at, %tid, 4, %at;
      st.shared.b32 [%at], %tid;
      )" + barrier + R"(
      ld.shared.b32 %value, [%other];
      cvt.u64.u32 %out0, %value;)",
                              .block = {num_threads, 1, 1}})[0];
  for (u32 thread = 0; thread < num_threads; ++thread) {
    if (out[thread] != num_threads - 1 - thread) return false;
  }
  return true;
}

void test_sync() {
  for (const u32 num_threads : {32u, 128u, 1024u}) {
    CHECK(exchanges("bar.sync 0;", num_threads), num_threads);
    CHECK(exchanges("bar.cta.sync 15, " + std::to_string(num_threads) + ";", num_threads));
    CHECK(exchanges("barrier.sync 3;", num_threads), num_threads);
    CHECK(exchanges("barrier.cta.sync.aligned 3;", num_threads), num_threads);
  }
  // The last warp has 8 threads: they count as 32.
  CHECK(exchanges("bar.sync 0;", 104));
  CHECK(exchanges("bar.sync 0, 128;", 104));
  CHECK(exchanges("barrier.sync 1, 128;", 104));
  CHECK(exchanges("bar.warp.sync -1;", 32));
  CHECK(!exchanges("", 128));  // Without a barrier the first warp reads what nobody wrote.
  // The barrier's number and count are in registers.
  CHECK(exchanges(".reg .b32 %id, %n;\nmov.b32 %id, 7;\nmov.b32 %n, 128;\nbar.sync %id, %n;", 128));
}

void test_unaligned() {
  // The halves of a warp arrive at different places.
  const std::string parted = R"(
      setp.lt.u32 %p, %last, 40;
      @%p bra HIGH;
      barrier.sync 2, 128;
      bra DONE;
    HIGH:
      barrier.sync 2, 128;
    DONE:)";
  CHECK(exchanges(parted, 112));
  // Lanes of one warp at two barriers: even ones at 1, odd ones at 2, each with the other warp's.
  const Values out = run_ptx({.body = R"(
      .reg .b32 %id;
      and.b32 %id, %tid, 1;
      add.u32 %id, %id, 1;
      barrier.sync %id, 32;
      cvt.u64.u32 %out0, %id;)",
                              .block = {64, 1, 1}})[0];
  for (u32 thread = 0; thread < 64; ++thread) CHECK(out[thread] == thread % 2 + 1);
  // A barrier for the whole block does not wait for threads that have exited.
  const Values left = run_ptx({.body = R"(
      .reg .pred %p;
      mov.b64 %out0, 5;
      setp.ge.u32 %p, %tid, 48;
      @%p exit;
      barrier.sync 0;)",
                               .block = {96, 1, 1}})[0];
  for (u32 thread = 0; thread < 48; ++thread) CHECK(left[thread] == 5);
  const std::string aligned = error_of_body(
      ".reg .pred %p;\nsetp.ge.u32 %p, %tid, 16;\n@%p bra HIGH;\nbar.sync 0;\nbra DONE;\n"
      "HIGH: bar.sync 0;\nDONE:",
      32);
  CHECK(contains(aligned, {"deadlock", "lanes 0-15: waits for lanes 16-31; PTX line",
                           "lanes 16-31: waits for lanes 0-15; PTX line", "bar.sync 0"}),
        aligned);
  const std::string guarded =
      error_of_body(".reg .pred %p;\nsetp.ge.u32 %p, %tid, 16;\n@%p bar.sync 0;", 32);
  CHECK(contains(guarded, {".aligned", "lanes 0-15", "guard is false", "lanes 16-31"}), guarded);
}

void test_arrive() {
  // The second warp hands over a word: it arrives and goes on, and the first warp waits for it.
  for (const char* const arrive : {"bar.arrive", "barrier.arrive.aligned", "barrier.cta.arrive"}) {
    const Values out = run_ptx({.body = std::string(R"(
        .shared .align 8 .b64 word;
        .reg .pred %p;
        mov.b64 %out0, 1;
        setp.ge.u32 %p, %tid, 32;
        @%p bra SECOND;
        bar.sync 4, 64;
        ld.shared.b64 %out0, [word];
        bra DONE;
      SECOND:
        st.shared.b64 [word], 99;
        )") + arrive + " 4, 64;\nDONE:",
                                .block = {64, 1, 1}})[0];
    for (u32 thread = 0; thread < 64; ++thread)
      CHECK(out[thread] == (thread < 32 ? 99 : 1), arrive);
  }
}

void test_reductions() {
  for (const u32 limit : {0u, 1u, 50u, 96u}) {
    for (const char* const aligned : {"", ".aligned"}) {
      const std::string bar = std::string(aligned).empty() ? "bar" : "barrier.cta";
      const auto out = run_ptx({.body = R"(
          .reg .pred %p, %q;
          .reg .b32 %n;
          setp.lt.u32 %p, %tid, )" + std::to_string(limit) +
                                        ";\n" + bar + ".red.popc" + aligned +
                                        R"(.u32 %n, 1, %p;
          cvt.u64.u32 %out0, %n;
          )" + bar + ".red.and" + aligned +
                                        R"(.pred %q, 1, 96, %p;
          selp.b64 %out1, 1, 0, %q;
          )" + bar + ".red.or" + aligned +
                                        R"(.pred %q, 1, %p;
          selp.b64 %out2, 1, 0, %q;
          )" + bar + ".red.popc" + aligned +
                                        R"(.u32 %n, 2, 96, !%p;
          cvt.u64.u32 %out3, %n;
          )" + bar + ".red.and" + aligned +
                                        R"(.pred %q, 1, !%p;
          selp.b64 %out4, 1, 0, %q;
          barrier.red.or.pred %q, 1, !%p;
          selp.b64 %out5, 1, 0, %q;)",
                                .num_outputs = 6,
                                .block = {96, 1, 1}});
      for (u32 thread = 0; thread < 96; ++thread) {
        CHECK(out[0][thread] == limit && out[3][thread] == 96 - limit, limit);
        CHECK(out[1][thread] == u64{limit == 96} && out[2][thread] == u64{limit != 0}, limit);
        CHECK(out[4][thread] == u64{limit == 0} && out[5][thread] == u64{limit != 96}, limit);
      }
    }
  }
}

void test_barrier_errors() {
  const auto one = [](const std::string& body) { return error_of_body(body, 128); };
  const auto check = [](const std::string& text, std::initializer_list<const char*> parts) {
    CHECK(contains(text, parts), text);
  };
  check(one("bar.sync 16;"), {"barrier 16: there are 16", "PTX line", "bar.sync 16"});
  check(one("bar.sync 1, 100;"), {"barrier 1 for 100 threads", "multiple of 32"});
  check(one("bar.sync 1, 0;"), {"barrier 1 for 0 threads"});
  check(one("bar.sync 1, 160;"), {"barrier 1 for 160 threads", "block's 128"});
  check(one(".reg .b32 %n;\n.reg .pred %p;\nsetp.lt.u32 %p, %tid, 32;\n"
            "selp.b32 %n, 64, 96, %p;\nbar.sync 1, %n;"),
        {"barrier 1 for 96 threads, while others wait at it for 64", "warp 1"});
  check(one(".reg .b32 %id;\nand.b32 %id, %tid, 1;\nbar.sync %id;"),
        {"different barriers or numbers of threads", "warp 0"});
  // 16 threads and then a whole warp, where 32 are expected.
  check(one(".reg .pred %p;\nsetp.lt.u32 %p, %tid, 16;\n@%p bra LOW;\nsetp.lt.u32 %p, %tid, 32;\n"
            "@%p bra DONE;\nbar.sync 1, 32;\nLOW: barrier.sync 1, 32;\nDONE: barrier.sync 3;"),
        {"barrier 1: 48 threads arrived where it expects 32"});
  check(
      one(".reg .pred %p;\nsetp.lt.u32 %p, %tid, 64;\n@%p bar.sync 1, 128;\n@!%p bar.sync 2, 96;"),
      {"deadlock", "warp 0, lanes 0-31: waits at barrier 1 (arrived 64 of 128); PTX line",
       "bar.sync 1, 128", "warp 3, lanes 0-31: waits at barrier 2 (arrived 64 of 96); PTX line"});
  CHECK(one("bar.sync 1, 128;\nbar.sync 1;\nbar.sync 1, 128;").empty());
}

// ---- barrier.cluster ----------------------------------------------------------------------------

std::string error_of_cluster(const std::string& body) {
  return error_of([&] {
    run_ptx({.body = "mov.b64 %out0, 0;\n.reg .pred %p;\n.reg .b32 %rank;\n"
                     "mov.u32 %rank, %cluster_ctarank;\n" +
                     body,
             .block = {64, 1, 1},
             .grid = {4, 1, 1},
             .cluster = {2, 1, 1}});
  });
}

void test_cluster_barrier() {
  // Passes words of global memory from block to block of a cluster, three times.
  const DeviceMemory<u64> words(Values(256));
  for (const char* const how : {".release.aligned", ".relaxed", ".aligned", ""}) {
    const std::string wait =
        std::string(how).find("aligned") == std::string::npos ? ".acquire" : ".acquire.aligned";
    const auto out = run_ptx({.body = std::string(R"(
        .reg .b64 %at, %value, %to_other;
        .reg .b32 %index, %i, %rank;
        .reg .pred %p;
        mov.u32 %rank, %cluster_ctarank;
        mov.b64 %at, %p0;
        mad.wide.u32 %at, %harness6, 8, %at;
        setp.eq.u32 %p, %rank, 0;
        selp.b64 %to_other, 512, -512, %p;
        mov.b32 %i, 0;
        mov.b64 %out0, 0;
      NEXT:
        add.u32 %index, %harness6, %i;
        cvt.u64.u32 %value, %index;
        st.global.b64 [%at], %value;
        barrier.cluster.arrive)") + how +
                                      ";\nbarrier.cluster.wait" + wait + R"(;
        add.u64 %value, %at, %to_other;
        ld.global.b64 %value, [%value];
        add.u64 %out0, %out0, %value;
        barrier.cluster.arrive;
        barrier.cluster.wait;
        add.u32 %i, %i, 1;
        setp.lt.u32 %p, %i, 3;
        @%p bra NEXT;)",
                              .block = {64, 1, 1},
                              .grid = {4, 1, 1},
                              .cluster = {2, 1, 1},
                              .parameters = {words.address()}})[0];
    for (u64 thread = 0; thread < 256; ++thread) CHECK(out[thread] == 3 * (thread ^ 64) + 3, how);
  }
}

void test_cluster_errors() {
  CHECK(error_of_cluster("barrier.cluster.arrive;\nbarrier.cluster.wait;").empty());
  // The barrier does not wait for threads that have exited.
  CHECK(error_of_cluster("setp.eq.u32 %p, %rank, 1;\n@%p exit;\nbarrier.cluster.arrive;\n"
                         "barrier.cluster.wait;")
            .empty());
  const std::string twice = error_of_cluster("barrier.cluster.arrive;\nbarrier.cluster.arrive;");
  CHECK(contains(twice, {"no barrier.cluster.wait since the last one", "lanes 0-31"}), twice);
  const std::string never = error_of_cluster("barrier.cluster.wait;");
  CHECK(contains(never, {"wait without barrier.cluster.arrive"}), never);
  const std::string stuck = error_of_cluster(
      "setp.eq.u32 %p, %rank, 1;\n@%p bra DONE;\nbarrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;\nDONE: bar.sync 0;\n@!%p bra END;\nbar.sync 1, 64;\n"
      "setp.lt.u32 %p, %tid, 32;\n@%p bar.sync 2, 64;\nEND:");
  CHECK(contains(stuck,
                 {"deadlock", "block (0, 0, 0), warp 0",
                  "waits at barrier.cluster.wait (arrived 64 of 96)",
                  "block (1, 0, 0), warp 0, lanes 0-31: waits at barrier 2 (arrived 32 of 64)"}),
        stuck);
  const std::string halves =
      error_of_cluster("setp.lt.u32 %p, %tid, 16;\n@%p barrier.cluster.arrive.aligned;");
  CHECK(contains(halves, {".aligned", "lanes 16-31"}), halves);
}

// ---- setmaxnreg ---------------------------------------------------------------------------------

/// A producer warpgroup that releases registers, and two consumer warpgroups that take them.
std::string hand_over(int released, int taken) {
  return ".reg .pred %p;\nsetp.lt.u32 %p, %tid, 128;\n@%p bra PRODUCER;\n"
         "setmaxnreg.inc.sync.aligned.u32 " +
         std::to_string(taken) +
         ";\nbra DONE;\nPRODUCER:\n"
         "setmaxnreg.dec.sync.aligned.u32 " +
         std::to_string(released) + ";\nDONE:";
}

void test_setmaxnreg() {
  const char* const bounds = ".maxntid 384\n.minnctapersm 1";  // 65536 / 384, rounded: 168.
  const auto run = [&](int released, int taken, const std::string& directives) {
    return error_of_body(hand_over(released, taken), 384, directives);
  };
  CHECK(run(24, 240, bounds).empty());
  CHECK(run(40, 232, bounds).empty());
  const std::string much = run(40, 240, bounds);
  // 12 warps of 168: four release 128 * 32 each; each of the eight takes 72 * 32, and seven
  // succeed.
  CHECK(contains(much, {"deadlock", "waits at setmaxnreg for 2304 registers (free: 256)",
                        "setmaxnreg.inc.sync.aligned.u32 240"}),
        much);
  CHECK(run(24, 240, ".maxntid 384").empty());
  CHECK(run(24, 240, ".reqntid 384").empty());
  CHECK(run(24, 240, ".maxntid 384\n.maxnreg 168").empty());
  const std::string small = run(24, 240, ".maxntid 384\n.minnctapersm 2");  // 80.
  CHECK(contains(small, {"deadlock", "waits at setmaxnreg for 5120 registers"}), small);
  const std::string down = run(176, 240, bounds);
  CHECK(contains(down, {"setmaxnreg.dec to 176, but the warp holds 168"}), down);
  const std::string up = run(24, 160, bounds);
  CHECK(contains(up, {"setmaxnreg.inc to 160, but the warp holds 168"}), up);
  const std::string without = run(24, 240, "");
  CHECK(contains(without, {"setmaxnreg needs a kernel with .maxnreg or launch bounds"}), without);
  for (const int count : {16, 25, 264}) {
    const std::string wrong = run(count, 240, bounds);
    CHECK(contains(wrong, {"a multiple of 8 from 24 to 256", "setmaxnreg.dec"}), wrong);
  }
  const std::string half = error_of_body(
      ".reg .pred %p;\nsetp.lt.u32 %p, %tid, 16;\n@%p setmaxnreg.dec.sync.aligned.u32 24;", 32,
      ".maxntid 32");
  CHECK(contains(half, {".aligned", "lanes 16-31"}), half);
}

}  // namespace

int main() {
  test_sync();
  test_unaligned();
  test_arrive();
  test_reductions();
  test_barrier_errors();
  test_cluster_barrier();
  test_cluster_errors();
  test_setmaxnreg();
  CHECK_FORMS("bar", "barrier", "setmaxnreg");
  return finish();
}
