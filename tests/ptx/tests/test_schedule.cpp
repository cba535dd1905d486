// The order in which groups of lanes, warps and clusters run; loops without progress and deadlocks;
// counts.
// SPDX-License-Identifier: Apache-2.0
#include <set>

#include "device_memory.h"
#include "run_ptx.h"
#include "state.h"
#include "test.h"

namespace {

using namespace ptxsim;
using namespace ptxsim::test;

// ---- Special registers --------------------------------------------------------------------------

Values special(const std::string& name, const Program& shape) {
  Program program = shape;
  if (name == "%gridid") {
    program.body = "mov.u64 %out0, %gridid;";
  } else if (name == "%is_explicit_cluster") {
    program.body = "selp.b64 %out0, 1, 0, %is_explicit_cluster;";
  } else {
    program.body = ".reg .b32 %x;\nmov.u32 %x, " + name + ";\ncvt.u64.u32 %out0, %x;";
  }
  return run_ptx(program)[0];
}

void test_special_registers() {
  const Program shape = {.block = {4, 5, 3}, .grid = {6, 2, 4}, .cluster = {3, 1, 2}};
  const Dim3 &block = shape.block, &grid = shape.grid, &cluster = shape.cluster;
  // The tests' words are indexed by %ctaid.x alone: all blocks of one x store the same values here.
  const auto same = [&](const char* name, u64 value) {
    const Values values = special(name, shape);
    for (u32 i = 0; i < grid.x * block.count(); ++i) CHECK(values[i] == value, name, i);
  };
  const auto by_thread = [&](const char* name, auto value) {
    const Values values = special(name, shape);
    for (u32 i = 0; i < grid.x * block.count(); ++i) {
      CHECK(values[i] == u64{value(i % block.count())}, name, i);
    }
  };
  const auto by_x = [&](const char* name, auto value) {
    const Values values = special(name, shape);
    for (u32 i = 0; i < grid.x * block.count(); ++i) {
      CHECK(values[i] == u64{value(i / block.count())}, name, i);
    }
  };
  by_thread("%tid.x", [](u32 t) { return t % 4; });
  by_thread("%tid.y", [](u32 t) { return t / 4 % 5; });
  by_thread("%tid.z", [](u32 t) { return t / 20; });
  by_thread("%laneid", [](u32 t) { return t % 32; });
  by_thread("%warpid", [](u32 t) { return t / 32; });
  by_thread("%lanemask_lt", [](u32 t) { return (1u << t % 32) - 1; });
  by_thread("%lanemask_le", [](u32 t) { return (1u << t % 32) - 1 + (1u << t % 32); });
  by_thread("%lanemask_eq", [](u32 t) { return 1u << t % 32; });
  by_thread("%lanemask_ge", [](u32 t) { return ~((1u << t % 32) - 1); });
  by_thread("%lanemask_gt", [](u32 t) { return ~((1u << t % 32) - 1 + (1u << t % 32)); });
  by_x("%ctaid.x", [](u32 x) { return x; });
  by_x("%clusterid.x", [](u32 x) { return x / 3; });
  by_x("%cluster_ctaid.x", [](u32 x) { return x % 3; });
  same("%ntid.x", 4);
  same("%ntid.y", 5);
  same("%ntid.z", 3);
  same("%nctaid.x", grid.x);
  same("%nctaid.y", grid.y);
  same("%nctaid.z", grid.z);
  same("%nwarpid", 2);
  same("%nclusterid.x", 2);
  same("%nclusterid.y", 2);
  same("%nclusterid.z", 2);
  same("%cluster_nctaid.x", cluster.x);
  same("%cluster_nctaid.y", cluster.y);
  same("%cluster_nctaid.z", cluster.z);
  same("%cluster_nctarank", 6);
  same("%is_explicit_cluster", 1);
  same("%nsmid", options().num_multiprocessors);
  same("%gridid", 0);
}

/// Each block's place in the grid and in its cluster, in memory of the test's own.
void test_blocks() {
  constexpr u32 kBlocks = 6 * 2 * 4;
  const char* const names[] = {"%ctaid.y",        "%ctaid.z",         "%clusterid.y",
                               "%clusterid.z",    "%cluster_ctaid.y", "%cluster_ctaid.z",
                               "%cluster_ctarank"};
  constexpr u32 kNames = 7;
  const DeviceMemory<u64> words(Values(kBlocks * kNames));
  std::string body =
      ".reg .b32 %x, %y, %z, %n;\n.reg .b64 %at;\nmov.u32 %x, %ctaid.x;\n"
      "mov.u32 %y, %ctaid.y;\nmov.u32 %z, %ctaid.z;\nmad.lo.u32 %y, %z, 2, %y;\n"
      "mad.lo.u32 %x, %y, 6, %x;\nmad.wide.u32 %at, %x, 56, %p0;\n"
      "mov.b64 %out0, 0;\n";
  for (u32 i = 0; i < kNames; ++i) {
    body += std::string("mov.u32 %n, ") + names[i] +
            ";\ncvt.u64.u32 %out0, %n;\nst.global.b64 [%at+" + std::to_string(8 * i) +
            "], %out0;\n";
  }
  run_ptx({.body = body,
           .block = {1, 1, 1},
           .grid = {6, 2, 4},
           .cluster = {3, 1, 2},
           .parameters = {words.address()}});
  for (u32 block = 0; block < kBlocks; ++block) {
    const u64* const found = &words[kNames * block];
    const u32 x = block % 6;
    const u32 y = block / 6 % 2;
    const u32 z = block / 12;
    const u64 expected[] = {y, z, y, z / 2, 0, z % 2, x % 3 + 3 * (z % 2)};
    for (u32 i = 0; i < kNames; ++i) CHECK(found[i] == expected[i], names[i], block);
  }
}

void test_shared_sizes() {
  const Program shape = {.dynamic_shared_bytes = 3000};
  CHECK(special("%dynamic_smem_size", shape) == Values(kWarpSize, 3000));
  CHECK(special("%total_smem_size", shape)[0] >= 3000);
  CHECK(special("%is_explicit_cluster", Program{}) == Values(kWarpSize, 0));
}

// ---- Launches that are refused ------------------------------------------------------------------

void test_launches() {
  const auto refused = [](const Program& shape) {
    Program program = shape;
    program.body = "mov.b64 %out0, 0;";
    return error_of([&] { run_ptx(program); });
  };
  const auto check = [](const std::string& text, const char* part) {
    CHECK(contains(text, {"program: ", part}), text);
  };
  CHECK(refused({.block = {1024, 1, 1}}).empty());
  check(refused({.block = {1025, 1, 1}}), "the block (1025, 1, 1) has more than 1024 threads");
  check(refused({.block = {65, 1, 1}, .directives = ".maxntid 64"}), "more than 64 threads");
  check(refused({.block = {0, 1, 1}}), "the block (0, 1, 1) is empty");
  check(refused({.grid = {0, 1, 1}}), "the grid (0, 1, 1) is empty");
  check(refused({.grid = {3, 1, 1}, .cluster = {2, 1, 1}}), "is no multiple of the cluster");
  check(refused({.grid = {32, 1, 1}, .cluster = {32, 1, 1}}), "more than 16 blocks");
  check(refused({.grid = {4, 1, 1}, .directives = ".reqnctapercluster 2"}),
        "is not the kernel's .reqnctapercluster (2, 1, 1)");
  CHECK(refused({.grid = {4, 1, 1}, .cluster = {2, 1, 1}, .directives = ".reqnctapercluster 2"})
            .empty());
}

// ---- Waiting without barriers -------------------------------------------------------------------

/// A thread stores a word of memory that others poll.
std::string flag(const std::string& who_waits, const std::string& sleep) {
  return R"(
      .reg .b64 %value;
      .reg .pred %p, %q;
      )" +
         who_waits + R"(
      @%p bra WAIT;
      st.global.b64 [%p0], 1;
      bra DONE;
    WAIT:
      )" +
         sleep + R"(
      ld.volatile.global.b64 %value, [%p0];
      setp.eq.u64 %q, %value, 0;
      @%q bra WAIT;
    DONE:
      mov.b64 %out0, 4;)";
}

void test_flags() {
  const char* const by_warp = "setp.lt.u32 %p, %tid, 32;";
  const char* const by_lane = "and.b32 %harness7, %tid, 31;\nsetp.lt.u32 %p, %harness7, 31;";
  const char* const by_block = "mov.u32 %harness7, %ctaid.x;\nsetp.ne.u32 %p, %harness7, 0;";
  for (const char* const sleep : {"", "nanosleep.u32 20;"}) {
    for (const char* const who : {by_warp, by_lane, by_block}) {
      const DeviceMemory<u64> word(Values(1));
      const Values out = run_ptx({.body = flag(who, sleep),
                                  .block = {64, 1, 1},
                                  .grid = {3, 1, 1},
                                  .parameters = {word.address()}})[0];
      CHECK(out == Values(192, 4), who, sleep);
    }
  }
  // Nobody stores it.
  const DeviceMemory<u64> word(Values(1));
  const auto fails = [&](const std::string& body, Dim3 grid) {
    return error_of([&] {
      run_ptx({.body = body, .block = {64, 1, 1}, .grid = grid, .parameters = {word.address()}});
    });
  };
  const std::string all = flag("setp.ge.u32 %p, %tid, 0;", "");
  const std::string busy = fails(all, {1, 1, 1});
  CHECK(contains(busy, {"polls for nothing", "warp 0, lanes 0-31: runs; PTX line",
                        "warp 1, lanes 0-31: runs; PTX line"}),
        busy);
  const std::string asleep =
      fails(flag("setp.ge.u32 %p, %tid, 0;", "nanosleep.u32 20;"), {1, 1, 1});
  CHECK(contains(asleep, {"deadlock", "lanes 0-31: sleeps; PTX line", "nanosleep.u32 20"}), asleep);
  // Only a block that runs later would store it.
  const char* const last = "mov.u32 %harness7, %ctaid.x;\nsetp.ne.u32 %p, %harness7, 2;";
  const std::string later = fails(flag(last, ""), {3, 1, 1});
  CHECK(contains(later, {"polls for nothing", "block (0, 0, 0)", "clusters run one after another"}),
        later);
  // Some threads of a warp poll, and the others wait for them.
  const std::string half = fails(
      flag("setp.lt.u32 %p, %tid, 16;", "setp.ge.u32 %q, %tid, 0;\n@%q bra WAIT;"), {1, 1, 1});
  CHECK(contains(half, {"polls for nothing", "warp 0, lanes 0-15: runs"}), half);
}

/// mbarrier.try_wait for a phase that never ends, beside a barrier that waits for the same warp.
void test_polls() {
  const auto wait = [](const char* parity) {
    return error_of([&] {
      run_ptx({.body = std::string(R"(
          .shared .align 8 .b64 mbarrier;
          .reg .pred %p, %q;
          mov.b64 %out0, 0;
          setp.eq.u32 %p, %tid, 0;
          @%p mbarrier.init.shared::cta.b64 [mbarrier], 1;
          bar.sync 0;
          setp.lt.u32 %p, %tid, 32;
          @!%p bra DONE;
        WAIT:
          mbarrier.try_wait.parity.shared::cta.b64 %q, [mbarrier], )") +
                       parity + ";\n@!%q bra WAIT;\nDONE: bar.sync 1;",
               .block = {64, 1, 1}});
    });
  };
  CHECK(wait("1").empty(), wait("1"));
  for (const Landing landing : {Landing::kAtOnce, Landing::kLate, Landing::kRandom}) {
    const WithLanding scope(landing);
    const std::string text = wait("0");
    CHECK(contains(text, {"deadlock",
                          "warp 0, lanes 0-31: polls mbarrier.try_wait.parity.shared::cta.b64; PTX "
                          "line",
                          "warp 1, lanes 0-31: waits at barrier 1 (arrived 32 of 64); PTX line",
                          "bar.sync 1"}),
          text);
  }
}

/// The four warps meet at wgmma.fence only if the option asks for it.
void test_warpgroups() {
  const WithLanding restore(Landing::kAtOnce);
  const auto run = [] {
    const DeviceMemory<u64> words(Values(1));
    return run_ptx({.body = R"(
        .reg .b64 %before;
        .reg .pred %p;
        mov.b64 %out0, 0;
        setp.lt.u32 %p, %tid, 96;
        @%p bra MEET;
        st.volatile.global.b64 [%p0], 5;
      MEET:
        wgmma.fence.sync.aligned;
        ld.volatile.global.b64 %out0, [%p0];)",
                    .block = {128, 1, 1},
                    .parameters = {words.address()}})[0];
  };
  CHECK(run()[0] == 0 && run()[127] == 5);  // The first warp runs first.
  options().warpgroups_meet = true;
  CHECK(run() == Values(128, 5));
  CHECK_ERROR(run_ptx({.body = R"(
      .reg .pred %p;
      mov.b64 %out0, 0;
      setp.lt.u32 %p, %tid, 32;
      @%p bra DONE;
      wgmma.fence.sync.aligned;
    DONE:
      bar.sync 1;)",
                       .block = {128, 1, 1}}),
              "deadlock", "warp 1, lanes 0-31: waits for the other warps of its warpgroup");
}

/// A long computation is not mistaken for a loop without progress.
void test_long_loop() {
  const Values out = run_ptx({.body = R"(
      .reg .b32 %i;
      .reg .pred %p;
      mov.b32 %i, 0;
    NEXT:
      add.u32 %i, %i, 1;
      setp.lt.u32 %p, %i, 300000;
      @%p bra NEXT;
      cvt.u64.u32 %out0, %i;)"})[0];
  CHECK(out == Values(kWarpSize, 300000));
}

// ---- Order --------------------------------------------------------------------------------------

/// Each warp takes as many tickets as asked, which show the order in which warps run.
std::vector<Values> tickets() {
  const DeviceMemory<u64> word(Values(1));
  return run_ptx({.body = R"(
      .reg .b64 %ticket;
      .reg .b32 %i;
      .reg .pred %p;
      mov.b64 %out0, 0;
      mov.b32 %i, 0;
    NEXT:
      atom.global.add.u64 %ticket, [%p0], 1;
      mad.lo.u64 %out0, %out0, 31, %ticket;
      add.u32 %i, %i, 1;
      setp.lt.u32 %p, %i, 500;
      @%p bra NEXT;)",
                  .block = {128, 1, 1},
                  .grid = {2, 1, 1},
                  .parameters = {word.address()}});
}

void test_order() {
  const WithLanding restore(Landing::kAtOnce);
  options().landing = Landing::kRandom;
  std::set<std::vector<Values>> orders;
  for (u64 seed = 1; seed <= 5; ++seed) {
    options().seed = seed;
    const auto order = tickets();
    CHECK(order == tickets(), seed);  // Depends on the seed, and on nothing else.
    orders.insert(order);
  }
  CHECK(orders.size() == 5, orders.size());
  options().landing = Landing::kAtOnce;
  CHECK(tickets() == tickets());
}

void test_host_threads() {
  const WithLanding restore(Landing::kAtOnce);
  options().num_threads = 4;
  Counts counts;
  const auto out = run_ptx({.body = R"(
      .shared .align 8 .b64 word;
      .reg .b64 %index;
      .reg .pred %p;
      cvt.u64.u32 %index, %harness6;
      setp.eq.u32 %p, %tid, 7;
      @%p st.shared.b64 [word], %index;
      bar.sync 0;
      ld.shared.b64 %out0, [word];)",
                            .block = {64, 1, 1},
                            .grid = {50, 1, 1}},
                           &counts);
  for (u64 i = 0; i < 3200; ++i) CHECK(out[0][i] == i / 64 * 64 + 7, i);
  // A block that waits for earlier blocks.
  const DeviceMemory<u64> words(Values(41));
  const Values chain = run_ptx({.body = R"(
      .reg .b32 %block;
      .reg .b64 %at, %value;
      .reg .pred %p, %q;
      mov.u32 %block, %ctaid.x;
      mad.wide.u32 %at, %block, 8, %p0;
      setp.eq.u32 %p, %block, 0;
      mov.b64 %value, 1;
      @%p bra STORE;
    WAIT:
      ld.volatile.global.b64 %value, [%at];
      setp.eq.u64 %q, %value, 0;
      @%q bra WAIT;
    STORE:
      add.u64 %value, %value, 1;
      st.volatile.global.b64 [%at+8], %value;
      mov.b64 %out0, %value;)",
                                .block = {1, 1, 1},
                                .grid = {40, 1, 1},
                                .parameters = {words.address()}})[0];
  for (u64 block = 0; block < 40; ++block) CHECK(chain[block] == block + 2, block);
  // An error ends the launch.
  CHECK_ERROR(run_ptx({.body = "mov.b64 %out0, 0;\n.reg .b32 %x;\n.reg .pred %p;\n"
                               "mov.u32 %x, %ctaid.x;\nsetp.eq.u32 %p, %x, 30;\n@%p trap;",
                       .grid = {60, 1, 1}}),
              "trap", "block (30, 0, 0)");
}

// ---- Poison -------------------------------------------------------------------------------------

void test_poison() {
  const Program program = {.body = R"(
      .shared .align 8 .b64 word;
      .local .align 8 .b64 own;
      ld.shared.b64 %out0, [word];
      ld.local.b64 %out1, [own];
      bar.sync 0;
      st.shared.b64 [word], 1;
      st.local.b64 [own], 1;)",
                           .num_outputs = 2,
                           .grid = {3, 1, 1}};
  CHECK(run_ptx(program) == std::vector<Values>(2, Values(96, ~u64{0})));
}

// ---- Counts -------------------------------------------------------------------------------------

/// Counts per instruction, by the opcode's first word and position, with divergent lanes.
void test_counts() {
  const WithLanding restore(Landing::kAtOnce);
  const auto count = [] {
    Counts counts;
    run_ptx({.body = R"(
        .reg .pred %p;
        .reg .b32 %i, %limit;
        and.b32 %limit, %tid, 1;
        mov.b32 %i, 0;
      NEXT:
        add.u32 %i, %i, 1;
        setp.le.u32 %p, %i, %limit;
        @%p bra NEXT;
        cvt.u64.u32 %out0, %i;)",
             .block = {64, 1, 1}},
            &counts);
    return counts;
  };
  Counts empty;
  run_ptx({.body = "mov.b64 %out0, 0;", .block = {64, 1, 1}}, &empty);
  const Counts first = count();
  // Each of two warps runs two instructions before the loop, three in it for all lanes, three for
  // odd lanes, and one after it, where the empty program runs one.
  CHECK(first.warp_instructions == empty.warp_instructions + 2 * 8, first.warp_instructions);
  // Threads: 32 * 3 + 32 * 3 (the branch counts where it is taken: 16 lanes) minus what is not
  // taken.
  const u64 threads = 64 * 2 + (64 * 2 + 32) + 32 * 2 + 64 - 64;
  CHECK(first.thread_instructions == empty.thread_instructions + threads);
  const Counts second = count();
  CHECK(first.ops == second.ops && first.warp_instructions == second.warp_instructions);
  options().landing = Landing::kRandom;
  options().seed = 3;
  const Counts shuffled = count();
  CHECK(first.ops == shuffled.ops && first.thread_instructions == shuffled.thread_instructions);
  options().num_threads = 2;
  CHECK(first.ops == count().ops);
}

/// Wavefronts and sectors of accesses with given addresses.
void test_access_counts() {
  Counts counts;
  Cluster cluster;
  cluster.counts = &counts;
  Warp warp;
  warp.cluster = &cluster;
  const auto shared = [&](u64 stride, u32 bytes, u32 lanes) {
    u64 addresses[kWarpSize];
    for (u64 lane = 0; lane < kWarpSize; ++lane) addresses[lane] = 1024 + stride * lane;
    counts = {};
    count_shared_access(warp, addresses, lanes, bytes);
    return counts.shared_wavefronts;
  };
  CHECK(shared(4, 4, kAllLanes) == 1);
  CHECK(shared(0, 4, kAllLanes) == 1);  // One word for all.
  CHECK(shared(8, 4, kAllLanes) == 2);
  CHECK(shared(128, 4, kAllLanes) == 32);
  CHECK(shared(132, 4, kAllLanes) == 1);
  CHECK(shared(2, 2, kAllLanes) == 1);
  CHECK(shared(8, 8, kAllLanes) == 2 && counts.shared_wavefronts_ideal == 2);
  CHECK(shared(16, 16, kAllLanes) == 4 && counts.shared_wavefronts_ideal == 4);
  CHECK(shared(128, 16, kAllLanes) == 32 && counts.shared_wavefronts_ideal == 4);
  CHECK(shared(128, 4, 0xff) == 8 && counts.shared_wavefronts_ideal == 1);
  const auto rows = [&](u64 stride) {
    u64 addresses[kWarpSize];
    for (u64 lane = 0; lane < kWarpSize; ++lane) addresses[lane] = 1024 + stride * lane;
    counts = {};
    count_matrix_rows(warp, addresses, 4);
    return counts.shared_wavefronts;
  };
  CHECK(rows(16) == 4 && counts.shared_wavefronts_ideal == 4);
  CHECK(rows(128) == 32 && rows(144) == 4 && rows(64) == 16);
  const auto global = [&](u64 first, u64 stride, u32 bytes, u32 lanes) {
    u64 addresses[kWarpSize];
    for (u64 lane = 0; lane < kWarpSize; ++lane) addresses[lane] = first + stride * lane;
    counts = {};
    count_global_access(warp, addresses, lanes, bytes);
    return counts.global_sectors;
  };
  CHECK(global(4096, 4, 4, kAllLanes) == 4 && counts.global_bytes == 128);
  CHECK(global(4112, 4, 4, kAllLanes) == 5);
  CHECK(global(4096, 32, 4, kAllLanes) == 32 && counts.global_bytes == 128);
  CHECK(global(4096, 16, 16, kAllLanes) == 16 && counts.global_bytes == 512);
  CHECK(global(4096, 0, 4, 0x3) == 1 && counts.global_bytes == 8 && counts.global_accesses == 1);
  Counts sum;
  sum.add(counts);
  sum.add(counts);
  CHECK(sum.global_bytes == 16 && sum.global_sectors == 2);
}

}  // namespace

int main() {
  test_special_registers();
  test_blocks();
  test_shared_sizes();
  test_launches();
  test_flags();
  test_polls();
  test_warpgroups();
  test_long_loop();
  test_order();
  test_host_threads();
  test_poison();
  test_counts();
  test_access_counts();
  return finish();
}
