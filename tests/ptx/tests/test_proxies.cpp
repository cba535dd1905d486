// Accesses of the two proxies to shared memory with a fence between them and without one; fences
// that the checks ignore; addresses in a cluster.
// SPDX-License-Identifier: Apache-2.0
#include "async_programs.h"
#include "device_memory.h"
#include "run_ptx.h"
#include "test.h"

namespace {

using namespace ptxsim;
using namespace ptxsim::test;

const std::string kFence = "fence.proxy.async.shared::cta;\n";
const std::string kBar = "bar.sync 0;\n";
const std::string kStore = R"(
      @%leader cp.async.bulk.global.shared::cta.bulk_group [%p0], [tile], 512;
      @%leader cp.async.bulk.commit_group;
      @%leader cp.async.bulk.wait_group 0;
)";
/// Stores another part of `tile`.
const std::string kStoreElsewhere = R"(
      @%leader cp.async.bulk.global.shared::cta.bulk_group [%p0], [tile+1024], 512;
      @%leader cp.async.bulk.commit_group;
      @%leader cp.async.bulk.wait_group 0;
)";
const std::string kLoad = load_tile("%p0", 512) + wait_for_barrier("loaded");
constexpr u32 kThreads = 64;

std::string error_of_body(const std::string& body) {
  const DeviceMemory<u64> memory{Values(kThreads)};
  return error_of([&] {
    run_ptx({.body = declarations() + init_barrier(1) + body,
             .inputs = {{1}},
             .block = {kThreads, 1, 1},
             .parameters = {memory.address()}});
  });
}
bool passes(const std::string& body) {
  const std::string error = error_of_body(body);
  CHECK(error.empty(), error);
  return error.empty();
}
bool is_missing(const std::string& body, const char* now, const char* before) {
  const std::string error = error_of_body(body);
  return contains(error, {"missing fence.proxy.async", now, before});
}

/// A generic write, then a read by the async proxy.
void test_write_then_read() {
  CHECK(passes(write_tile() + kFence + kBar + kStore));
  CHECK(is_missing(write_tile() + kBar + kStore, "reads", "wrote"));
  CHECK(is_missing(kFence + write_tile() + kBar + kStore, "reads", "wrote"));
  CHECK(is_missing(write_tile() + "fence.proxy.async.global;\n" + kBar + kStore, "reads", "wrote"));
  CHECK(is_missing(write_tile() + "fence.acq_rel.cta;\n" + kBar + kStore, "reads", "wrote"));
  CHECK(passes(write_tile() + "fence.proxy.async;\n" + kBar + kStore));
  CHECK(passes(write_tile() + "fence.proxy.async.shared::cluster;\n" + kBar + kStore));
  CHECK(passes(write_tile() + kBar + kStoreElsewhere));
  // The second write comes after the fence.
  CHECK(is_missing(write_tile() + kFence + write_tile() + kBar + kStore, "reads", "wrote"));
  // Atomics write too.
  CHECK(is_missing("@%leader red.shared.add.u32 [tile], 1;\n" + kBar + kStore, "reads", "wrote"));
  // Two reads need no fence.
  CHECK(passes(read_tile() + kBar + kStore));
}

/// A generic access, then a write by the async proxy.
void test_access_then_write() {
  CHECK(passes(read_tile() + kFence + kBar + kLoad));
  CHECK(is_missing(read_tile() + kBar + kLoad, "overwrites", "read"));
  CHECK(is_missing(kFence + read_tile() + kBar + kLoad, "overwrites", "read"));
  CHECK(passes(write_tile() + kFence + kBar + kLoad));
  CHECK(is_missing(write_tile() + kBar + kLoad, "overwrites", "wrote"));
  CHECK(passes(kLoad + read_tile()));
  // The same with generic addresses.
  const std::string generic = "mov.u64 %a, tile;\ncvta.shared.u64 %a, %a;\nld.u64 %out0, [%a];\n";
  CHECK(is_missing(generic + kBar + kLoad, "overwrites", "read"));
  // The async proxy wrote it, and the generic one has not touched it since, so it needs no fence.
  CHECK(passes(kLoad + kBar + kStore));
  const std::string again = load_tile("%p0", 512) + wait_for_barrier("again", /*parity=*/1);
  CHECK(passes(kLoad + kBar + again));
  CHECK(is_missing(kLoad + read_tile() + kBar + again, "overwrites", "read"));
  CHECK(passes(kLoad + read_tile() + kFence + kBar + again));
}

/// One thread's fence covers what others did, if a barrier orders them.
void test_fence_of_another() {
  const std::string leader = "@%leader " + kFence;
  CHECK(passes(write_tile() + kBar + leader + kStore));
  CHECK(passes(read_tile() + kBar + leader + kLoad));
  CHECK(is_missing(write_tile() + leader + kBar + kStore, "reads", "wrote"));
  // An mbarrier orders them.
  const std::string arrive = "mbarrier.arrive.shared::cta.b64 _, [bar2];\n";
  const auto by_mbarrier = [&](const std::string& before_wait) {
    return R"(.shared .align 8 .b8 bar2[8];
      @%leader mbarrier.init.shared::cta.b64 [bar2], 64;
      bar.sync 0;
      )" + write_tile() +
           before_wait + R"(waiting2:
      mbarrier.try_wait.parity.shared::cta.b64 %done, [bar2], 0;
      @!%done bra waiting2;
      )" + leader +
           kStore;
  };
  CHECK(passes(by_mbarrier(arrive)));
  CHECK(passes(by_mbarrier("bar.warp.sync 0xffffffff;\n" + arrive)));
  // Within a warp, after all its lanes met.
  const std::string first_warp = "setp.lt.u32 %p, %tid, 32;\n@!%p bra others;\n";
  const std::string body = write_tile();
  CHECK(passes(first_warp + body + "bar.warp.sync 0xffffffff;\n" + leader + kStore + "others:\n"));
  CHECK(is_missing(first_warp + body + leader + kStore + "others:\n", "reads", "wrote"));
  // A meeting of half the warp orders nothing.
  CHECK(is_missing(first_warp + body + R"(
      setp.lt.u32 %p, %tid, 16;
      @!%p bra others;
      bar.warp.sync 0x0000ffff;
      )" + leader + kStore +
                       "others:\n",
                   "reads", "wrote"));
}

/// Named barriers also order threads that arrive without waiting.
void test_named_barrier() {
  const auto body = [](const std::string& fence) {
    return "setp.lt.u32 %p, %tid, 32;\n@%p bra first;\n" + write_tile() + R"(
      bar.arrive 1, 64;
      bra join;
      first:
      bar.sync 1, 64;
      )" + fence +
           kStore + "join:\n";
  };
  CHECK(passes(body("@%leader " + kFence)));
  CHECK(is_missing(body(""), "reads", "wrote"));
}

/// cp.async goes through the generic proxy, and is complete once it has been waited for.
void test_thread_copies() {
  const std::string copy = R"(
      mov.u32 %r0, tile;
      mad.lo.u32 %r0, %tid, 8, %r0;
      mad.wide.u32 %a, %tid, 8, %p0;
      cp.async.ca.shared.global [%r0], [%a], 8;
  )";
  const std::string wait = "cp.async.wait_all;\n";
  with_each_landing([&] {
    CHECK(passes(copy + wait + kFence + kBar + kStore));
    CHECK(is_missing(copy + wait + kBar + kStore, "reads", "wrote"));
    CHECK(is_missing(copy + kFence + wait + kBar + kStore, "reads", "wrote"));
  });
  // After an mbarrier wait, the waiting thread's fence counts.
  const auto by_mbarrier = [&](const std::string& fence) {
    return R"(.shared .align 8 .b8 bar2[8];
      @%leader mbarrier.init.shared::cta.b64 [bar2], 64;
      bar.sync 0;
      )" + copy +
           R"(
      cp.async.mbarrier.arrive.noinc.shared::cta.b64 [bar2];
      waiting2:
      mbarrier.try_wait.parity.shared::cta.b64 %done, [bar2], 0;
      @!%done bra waiting2;
      )" + fence +
           kStore;
  };
  with_each_landing([&] {
    CHECK(passes(by_mbarrier("@%leader " + kFence)));
    CHECK(is_missing(by_mbarrier(""), "reads", "wrote"));
  });
}

/// Without checks nothing is reported.
void test_unchecked() {
  options().check = false;
  CHECK(error_of_body(write_tile() + kBar + kStore).empty());
  options().check = true;
}

void test_plain_fences() {
  for (const char* fence :
       {"fence.acq_rel.gpu;", "fence.sc.sys;", "fence.cta;", "fence.acquire.cluster;",
        "fence.release.gpu;", "membar.cta;", "membar.gl;", "membar.sys;", "fence.proxy.alias;",
        "fence.proxy.tensormap::generic.release.gpu;",
        "fence.proxy.tensormap::generic.acquire.gpu [%p0], 128;"}) {
    CHECK(passes(std::string(fence) + "\n"), fence);
  }
  CHECK(contains(error_of_body("fence.proxy.foo;\n"), {"'.foo' is not known"}));
}

void test_policies() {
  for (const char* line :
       {"createpolicy.fractional.L2::evict_first.b64 %a, 1.0;",
        "createpolicy.fractional.L2::evict_last.b64 %a;",
        "createpolicy.fractional.L2::evict_last.L2::evict_unchanged.b64 %a, 0.5;"}) {
    CHECK(passes(std::string(line) + "\n"), line);
  }
}

void test_cluster_addresses() {
  const Values out = run_ptx({.body = R"(
      .shared .align 8 .b8 word[8];
      .reg .b32 %r<8>;
      .reg .b64 %a, %b;
      mov.u32 %r0, %cluster_ctarank;
      mov.u32 %r1, word;
      st.shared.u32 [%r1], %r0;
      barrier.cluster.arrive;
      barrier.cluster.wait;
      xor.b32 %r2, %r0, 1;
      mapa.shared::cluster.u32 %r3, %r1, %r2;
      ld.shared::cluster.u32 %r4, [%r3];
      getctarank.shared::cluster.u32 %r5, %r3;
      mov.u64 %a, word;
      cvta.shared.u64 %a, %a;
      mapa.u64 %b, %a, %r2;
      ld.u32 %r6, [%b];
      getctarank.u64 %r7, %b;
      mad.lo.u32 %r4, %r4, 10, %r5;
      mad.lo.u32 %r4, %r4, 10, %r6;
      mad.lo.u32 %r4, %r4, 10, %r7;
      cvt.u64.u32 %out0, %r4;
      barrier.cluster.arrive;
      barrier.cluster.wait;)",
                              .grid = {2},
                              .cluster = {2}})[0];
  CHECK(out[0] == 1111 && out[32] == 0, out[0], out[32]);
  CHECK(contains(error_of_body("mov.u32 %r0, tile;\nmapa.shared::cluster.u32 %r1, %r0, 1;\n"),
                 {"no block 1"}));
}

}  // namespace

int main() {
  test_write_then_read();
  test_access_then_write();
  test_fence_of_another();
  test_named_barrier();
  test_thread_copies();
  test_unchecked();
  test_plain_fences();
  test_policies();
  test_cluster_addresses();
  CHECK_FORMS("fence", "membar", "createpolicy", "mapa", "getctarank");
  return finish();
}
