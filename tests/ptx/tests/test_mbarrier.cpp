// mbarrier.*: phases, counts, states, remote arrivals; and each kind of misuse with its error.
// SPDX-License-Identifier: Apache-2.0
#include "async_programs.h"
#include "device_memory.h"
#include "run_ptx.h"
#include "test.h"

namespace {

using namespace ptxsim;
using namespace ptxsim::test;

Values run_body(const std::string& body, u32 num_threads = 32) {
  return run_ptx({.body = declarations() + body, .block = {num_threads, 1, 1}})[0];
}

/// Whether `lines` set %p in thread 0, which alone uses an mbarrier of `count` arrivals.
bool holds(int count, const std::string& lines) {
  return run_body(init_barrier(count) + "@!%leader bra not_leader;\n" + lines +
                  "selp.b64 %out0, 1, 0, %p;\nnot_leader:\n")[0] == 1;
}

std::string test_parity(int parity) {
  return "mbarrier.test_wait.parity.shared::cta.b64 %p, [bar], " + std::to_string(parity) + ";\n";
}
const std::string kArrive = "mbarrier.arrive.shared::cta.b64 _, [bar];\n";

void test_phases() {
  // Before the first phase ends, the phase before it counts as complete.
  CHECK(!holds(2, test_parity(0)));
  CHECK(holds(2, test_parity(1)));
  CHECK(!holds(2, kArrive + test_parity(0)));
  CHECK(holds(2, kArrive + kArrive + test_parity(0)));
  CHECK(!holds(2, kArrive + kArrive + test_parity(1)));
  CHECK(holds(2, kArrive + kArrive + kArrive + kArrive + test_parity(1)));
  CHECK(holds(3, "mbarrier.arrive.shared::cta.b64 _, [bar], 3;\n" + test_parity(0)));
  CHECK(!holds(3, "mbarrier.arrive.release.cta.shared::cta.b64 _, [bar], 2;\n" + test_parity(0)));
  for (const char* wait :
       {"mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 %p, [bar], 0;",
        "mbarrier.try_wait.parity.shared.b64 %p, [bar], 0, 0x989680;",
        "mbarrier.test_wait.parity.relaxed.cluster.shared::cta.b64 %p, [bar], 0;"}) {
    CHECK(!holds(1, wait), wait);
    CHECK(holds(1, kArrive + wait), wait);
  }
}

void test_bytes() {
  const std::string expect = "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [bar], 64;\n";
  const std::string complete = "mbarrier.complete_tx.shared::cta.b64 [bar], 32;\n";
  CHECK(!holds(1, expect + kArrive + test_parity(0)));
  CHECK(!holds(1, expect + kArrive + complete + test_parity(0)));
  CHECK(holds(1, expect + kArrive + complete + complete + test_parity(0)));
  CHECK(!holds(1, expect + complete + complete + test_parity(0)));
  // Bytes may arrive before they are expected.
  const std::string arrive = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 64;\n";
  CHECK(holds(1, complete + complete + arrive + test_parity(0)));
  CHECK(!holds(2, complete + complete + arrive + test_parity(0)));
  CHECK(holds(1, arrive + "mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [bar], 64;\n" +
                     test_parity(0)));
  CHECK(holds(1, arrive + "mbarrier.complete_tx.shared::cluster.relaxed.cluster.b64 [bar], 64;\n" +
                     test_parity(0)));
}

void test_states() {
  const std::string state = "mbarrier.arrive.shared::cta.b64 %state, [bar];\n";
  const std::string wait = "mbarrier.test_wait.shared::cta.b64 %p, [bar], %state;\n";
  CHECK(!holds(2, state + wait));
  CHECK(holds(1, state + wait));
  CHECK(holds(2, state + kArrive + wait));
  // Waits for the next phase's state.
  CHECK(!holds(2, state + kArrive + state + wait));
  CHECK(holds(2, state + kArrive + state + kArrive +
                     "mbarrier.try_wait.shared::cta.b64 %p, [bar], %state;\n"));
  const std::string no_complete = "mbarrier.arrive.noComplete.shared::cta.b64 %state, [bar], 2;\n";
  CHECK(!holds(3, no_complete + wait));
  CHECK(holds(3, no_complete + kArrive + wait));
  CHECK_ERROR(holds(2, no_complete + wait), "noComplete would complete");
  // Counts from the state before the arrival.
  CHECK(holds(3, state + "mbarrier.pending_count.b64 %r0, %state;\nsetp.eq.u32 %p, %r0, 3;\n"));
  CHECK(holds(3, "mbarrier.arrive.expect_tx.shared::cta.b64 %state, [bar], 16;\n" + state +
                     "mbarrier.pending_count.b64 %r0, %state;\nsetp.eq.u32 %p, %r0, 2;\n"));
}

/// Uses generic addresses.
void test_generic() {
  const std::string generic = "mov.u64 %a, bar;\ncvta.shared.u64 %a, %a;\n";
  CHECK(holds(1, generic + "mbarrier.arrive.b64 _, [%a];\n" + test_parity(0)));
  CHECK(holds(1, generic + kArrive + "mbarrier.test_wait.parity.b64 %p, [%a], 0;\n"));
  CHECK(holds(1, generic + "mbarrier.inval.b64 [%a];\nmbarrier.init.b64 [%a], 2;\n" + kArrive +
                     kArrive + test_parity(0)));
}

/// Every thread arrives, and then sees what the others wrote before.
void test_all_threads() {
  for (const u32 threads : {32u, 128u}) {
    const Values out =
        run_ptx({.body = declarations() + init_barrier(static_cast<int>(threads)) + write_tile() +
                         kArrive + wait_for_barrier("waiting") + "xor.b32 %tid, %tid, " +
                         std::to_string(threads - 1) + ";\n" + read_tile(),
                 .inputs = {[&] {
                   Values numbers(threads);
                   for (u32 i = 0; i < threads; ++i) numbers[i] = i;
                   return numbers;
                 }()},
                 .block = {threads, 1, 1}})[0];
    for (u32 i = 0; i < threads; ++i) CHECK(out[i] == (i ^ (threads - 1)), i);
  }
}

/// A block of a cluster arrives at block 0's mbarrier, on which block 0 waits.
Program remote_program(const std::string& fence, const std::string& arrive) {
  return {.body = declarations() + R"(
      @%leader mbarrier.init.shared::cta.b64 [bar], 1;
      )" + fence + R"(
      barrier.cluster.arrive;
      barrier.cluster.wait;
      mov.u32 %r1, %cluster_ctarank;
      setp.eq.u32 %p, %r1, 1;
      and.pred %p, %p, %leader;
      mov.u32 %r2, bar;
      mapa.shared::cluster.u32 %r3, %r2, 0;
      )" + arrive +
                  R"(
      setp.eq.u32 %p, %r1, 0;
      @!%p bra after;
      )" + wait_for_barrier("waiting") +
                  R"(
      mov.b64 %out0, 1;
      after:
      barrier.cluster.arrive;
      barrier.cluster.wait;)",
          .grid = {2},
          .cluster = {2}};
}

void test_remote() {
  const std::string fence = "@%leader fence.mbarrier_init.release.cluster;";
  const std::string arrive = "@%p mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r3];";
  for (const char* line : {"@%p mbarrier.arrive.shared::cluster.b64 _, [%r3];", arrive.c_str(),
                           "@%p mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r3], 1;",
                           "@%p mbarrier.arrive.expect_tx.shared::cluster.b64 _, [%r3], 16;\n"
                           "@%p mbarrier.complete_tx.shared::cluster.b64 [%r3], 16;"}) {
    const Values out = run_ptx(remote_program(fence, line))[0];
    CHECK(out[0] == 1 && out[31] == 1 && out[32] == 0, line);
  }
  CHECK_ERROR(run_ptx(remote_program("", arrive)), "missing fence.mbarrier_init", "another block");
  CHECK_ERROR(run_ptx(remote_program(fence, "@%p mbarrier.arrive.shared::cta.b64 _, [%r3];")),
              "another block", "without .shared::cluster");
  CHECK_ERROR(
      run_ptx(remote_program(fence, "@%p mbarrier.arrive.shared::cluster.b64 %state, [%r3];")),
      "no state of a remote mbarrier");
}

void test_overruns() {
  CHECK_ERROR(holds(1, "mbarrier.arrive.shared::cta.b64 _, [bar], 2;\n"), "more arrivals", "the 1");
  // As many arrivals as the phase expects, and one for the next phase.
  CHECK(!holds(2, kArrive + kArrive + kArrive + test_parity(1)));
}

void test_counts_in_range() {
  const std::string most = "mbarrier.expect_tx.shared::cta.b64 [bar], 1048575;\n";
  CHECK(!holds(1, most + test_parity(0)));
  CHECK_ERROR(holds(1, most + "mbarrier.expect_tx.shared::cta.b64 [bar], 1;\n"), "out of range");
  CHECK_ERROR(holds(1, "mbarrier.complete_tx.shared::cta.b64 [bar], 1048576;\n"), "out of range");
  CHECK_ERROR(run_body(init_barrier(0)), "count of 0");
  CHECK_ERROR(run_body(init_barrier(1 << 20)), "count of 1048576");
  CHECK(!holds((1 << 20) - 1, test_parity(0)));
}

void test_validity() {
  const auto leader = [](const std::string& lines) {
    return "@!%leader bra not_leader;\n" + lines + "not_leader:\n";
  };
  CHECK_ERROR(run_body(leader(kArrive)), "not initialised");
  CHECK_ERROR(run_body(leader(test_parity(0))), "not initialised");
  CHECK_ERROR(run_body(leader("mbarrier.expect_tx.shared::cta.b64 [bar], 16;\n")),
              "not initialised");
  CHECK_ERROR(run_body(leader("mbarrier.inval.shared::cta.b64 [bar];\n")), "not initialised");
  const std::string init = "mbarrier.init.shared::cta.b64 [bar], 2;\n";
  const std::string inval = "mbarrier.inval.shared::cta.b64 [bar];\n";
  CHECK_ERROR(run_body(leader(init + inval + kArrive)), "was invalidated");
  CHECK_ERROR(run_body(leader(init + kArrive + init)), "under way", "1 of 2 arrivals");
  CHECK(run_body(leader(init + kArrive + inval + init)).size() == 32);
  CHECK_ERROR(run_body(leader(init + "st.shared.u32 [bar], 0;\n" + kArrive)), "overwritten");
  CHECK_ERROR(run_body(leader("mbarrier.init.shared::cta.b64 [bar+4], 1;\n")), "misaligned");
  CHECK_ERROR(run_body(leader(init + "mbarrier.test_wait.parity.shared::cta.b64 %p, [bar], 2;\n")),
              "neither 0 nor 1");
}

/// Nobody completes the phase.
void test_deadlock() {
  CHECK_ERROR(run_body(init_barrier(2) + "@%leader " + kArrive + wait_for_barrier("waiting")),
              "mbarrier.try_wait");
}

}  // namespace

int main() {
  test_phases();
  test_bytes();
  test_states();
  test_generic();
  test_all_threads();
  test_remote();
  test_overruns();
  test_counts_in_range();
  test_validity();
  test_deadlock();
  CHECK_FORMS("mbarrier");
  return finish();
}
