// cp.async.bulk: ranges to and from shared memory; groups; multicast; when copies land.
// SPDX-License-Identifier: Apache-2.0
#include "async_programs.h"
#include "device_memory.h"
#include "run_ptx.h"
#include "test.h"

namespace {

using namespace ptxsim;
using namespace ptxsim::test;

Values numbers(u64 first, std::size_t count) {
  Values values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = first + i;
  return values;
}

Values run_with(const std::string& body, const DeviceMemory<u64>& memory,
                Counts* counts = nullptr) {
  return run_ptx({.body = declarations() + body,
                  .inputs = {numbers(1000, 32)},
                  .parameters = {memory.address()}},
                 counts)[0];
}

const std::string kFence = "fence.proxy.async.shared::cta;\n";
/// Thread 0 stores the 256 bytes of `tile` to memory at %p0, after all threads' writes.
const std::string kStore = kFence + R"(
      bar.sync 0;
      @%leader cp.async.bulk.global.shared::cta.bulk_group [%p0], [tile], 256;
      @%leader cp.async.bulk.commit_group;
)";
const std::string kWait = "@%leader cp.async.bulk.wait_group 0;\n";
const std::string kWaitRead = "@%leader cp.async.bulk.wait_group.read 0;\n";

void test_load() {
  const DeviceMemory<u64> memory(numbers(7, 32));
  const std::string load = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes";
  const std::string expect =
      init_barrier(1) + "@%leader mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 256;\n";
  with_each_landing([&] {
    for (const std::string& opcode :
         {load, std::string("cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes"),
          load + ".L2::cache_hint"}) {
      const std::string policy = opcode.ends_with("hint") ? ", %b" : "";
      const std::string line = opcode + " [tile], [%p0], 256, [bar]" + policy + ";";
      const Values out = run_with("mov.b64 %b, 0;\n" + expect + "@%leader " + line + "\n" +
                                      wait_for_barrier("waiting") + read_tile(),
                                  memory);
      CHECK(out == numbers(7, 32), line);
    }
  });
}

/// If copies land late, nothing is there before the barrier says so.
void test_late() {
  const DeviceMemory<u64> memory(numbers(7, 32));
  const std::string early = init_barrier(1) + load_tile("%p0", 256) + read_tile() +
                            "mov.b64 %a, %out0;\n" + wait_for_barrier("waiting") +
                            "mov.b64 %out0, %a;\n";
  {
    const WithLanding late(Landing::kLate);
    CHECK(run_with(early, memory)[0] == ~u64{0});  // The initial content of shared memory.
  }
  const WithLanding at_once(Landing::kAtOnce);
  CHECK(run_with(early, memory)[0] == 7);
}

void test_store() {
  DeviceMemory<u64> memory(Values(32));
  with_each_landing([&] {
    for (std::size_t i = 0; i < 32; ++i) memory[i] = 0;
    run_with(write_tile() + kStore + kWait, memory);
    for (std::size_t i = 0; i < 32; ++i) CHECK(memory[i] == 1000 + i, i);
  });
  run_with("mov.b64 %b, 0;\n" + write_tile() + kFence + R"(
      bar.sync 0;
      @%leader cp.async.bulk.global.shared::cta.bulk_group.L2::cache_hint [%p0+128], [tile], 128, %b;
      @%leader cp.async.bulk.commit_group;
      )" + kWait,
           memory);
  CHECK(memory[16] == 1000 && memory[31] == 1015, memory[16]);
}

/// A store reads its bytes when it lands, so `tile` must not be written before.
void test_overwritten_source() {
  DeviceMemory<u64> memory(Values(32));
  const auto stored = [&](const std::string& wait) {
    run_with(write_tile() + kStore + wait + "bar.sync 0;\nst.shared.u64 [%r0], 5;\n" + kWait,
             memory);
    return memory[0];
  };
  const WithLanding late(Landing::kLate);
  CHECK(stored("") == 5);
  CHECK(stored(kWait) == 1000);
  CHECK(stored(kWaitRead) == 1000);
}

/// What was written is there after wait_group, but not yet after wait_group.read.
void test_wait_read() {
  DeviceMemory<u64> memory(Values(32));
  const auto seen = [&](const std::string& wait) {
    memory[0] = 0;
    return run_with(write_tile() + kStore + wait + "ld.global.u64 %out0, [%p0];\n" + kWait,
                    memory)[0];
  };
  const WithLanding late(Landing::kLate);
  CHECK(seen("") == 0);
  CHECK(seen(kWaitRead) == 0);
  CHECK(seen(kWait) == 1000);
}

/// wait_group N leaves the last N groups pending.
void test_groups() {
  DeviceMemory<u64> memory(Values(32));
  const auto seen = [&](int num_left) {
    for (std::size_t i = 0; i < 32; ++i) memory[i] = 0;
    const Values out = run_with(write_tile() + kFence + "bar.sync 0;\n@!%leader bra after;\n" + R"(
        cp.async.bulk.global.shared::cta.bulk_group [%p0], [tile], 16;
        cp.async.bulk.commit_group;
        cp.async.bulk.global.shared::cta.bulk_group [%p0+16], [tile], 16;
        cp.async.bulk.global.shared::cta.bulk_group [%p0+32], [tile], 16;
        cp.async.bulk.commit_group;
        cp.async.bulk.wait_group )" +
                                    std::to_string(num_left) + R"(;
        ld.global.u64 %out0, [%p0];
        ld.global.u64 %a, [%p0+32];
        shr.u64 %a, %a, 3;
        add.u64 %out0, %out0, %a;
        cp.async.bulk.wait_group 0;
        after:)",
                                memory);
    return out[0];
  };
  const WithLanding late(Landing::kLate);
  CHECK(seen(2) == 0);
  CHECK(seen(1) == 1000);
  CHECK(seen(0) == 1125);
}

/// Threads must not exit while their stores read shared memory.
void test_exit() {
  DeviceMemory<u64> memory(Values(32));
  with_each_landing([&] {
    CHECK_ERROR(run_with(write_tile() + kStore, memory), "exit while a bulk store", "lane");
    CHECK(error_of([&] { run_with(write_tile() + kStore + kWaitRead, memory); }).empty());
    for (std::size_t i = 0; i < 32; ++i) CHECK(memory[i] == 1000 + i, i);
  });
}

/// Block 0 loads to both blocks of a cluster.
void test_multicast() {
  const DeviceMemory<u64> memory(numbers(50, 32));
  const auto program = [&](const std::string& mask) {
    return Program{.body = declarations() + init_barrier(1) + R"(
        barrier.cluster.arrive;
        barrier.cluster.wait;
        .reg .b16 %mask;
        mov.b16 %mask, )" + mask +
                           R"(;
        mov.u32 %r1, %cluster_ctarank;
        @%leader mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 256;
        setp.eq.u32 %p, %r1, 0;
        and.pred %p, %p, %leader;
        @%p cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [tile], [%p0], 256, [bar], %mask;
        )" + wait_for_barrier("waiting") +
                           read_tile() + R"(
        barrier.cluster.arrive;
        barrier.cluster.wait;)",
                   .grid = {2},
                   .cluster = {2},
                   .parameters = {memory.address()}};
  };
  with_each_landing([&] {
    const Values out = run_ptx(program("3"))[0];
    for (std::size_t i = 0; i < 64; ++i) CHECK(out[i] == 50 + i % 32, i);
  });
  CHECK_ERROR(run_ptx(program("4")), "blocks that the cluster does not have");
  CHECK_ERROR(run_ptx(program("1")), "deadlock");
}

void test_errors() {
  const DeviceMemory<u64> memory(numbers(0, 32));
  const auto load = [&](const std::string& operands) {
    run_with(init_barrier(1) +
                 "@%leader cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes " +
                 operands + ";\n",
             memory);
  };
  CHECK_ERROR(load("[tile], [%p0], 24, [bar]"), "24 bytes", "multiple of 16");
  CHECK_ERROR(load("[tile+8], [%p0], 16, [bar]"), "misaligned", "destination");
  CHECK_ERROR(load("[tile], [%p0+8], 16, [bar]"), "misaligned", "source");
  CHECK_ERROR(load("[tile], [%p0], 272, [bar]"), "invalid global", "272 bytes");
  CHECK_ERROR(load("[tile+16368], [%p0], 32, [bar]"), "outside of the block's");
  CHECK_ERROR(load("[tile], [%p0], 16, [tile+64]"), "not initialised");
  CHECK_ERROR(load("[tile], [%p0], 16, [bar+4]"), "misaligned mbarrier");
  const auto store = [&](const std::string& operands) {
    run_with("@%leader cp.async.bulk.global.shared::cta.bulk_group " + operands + ";\n", memory);
  };
  CHECK_ERROR(store("[%p0], [tile], 8"), "multiple of 16");
  CHECK_ERROR(store("[%p0+8], [tile], 16"), "misaligned");
  CHECK_ERROR(store("[%p0+256], [tile], 16"), "invalid global");
  // The fence after mbarrier.init is missing.
  CHECK_ERROR(run_with("@%leader mbarrier.init.shared::cta.b64 [bar], 1;\n" + load_tile("%p0", 16) +
                           wait_for_barrier("waiting"),
                       memory),
              "missing fence.mbarrier_init", "async proxy");
  CHECK(error_of([&] {
          run_with("@%leader mbarrier.init.shared::cta.b64 [bar], 1;\n" + kFence +
                       load_tile("%p0", 16) + wait_for_barrier("waiting"),
                   memory);
        }).empty());
  // The mbarrier is gone when the copy lands; the error names the copy.
  const WithLanding late(Landing::kLate);
  CHECK_ERROR(run_with(init_barrier(1) +
                           "@%leader cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::"
                           "bytes [tile], [%p0], 16, [bar];\n"
                           "@%leader mbarrier.inval.shared::cta.b64 [bar];\n",
                       memory),
              "invalidated", "cp.async.bulk");
}

void test_prefetch() {
  const DeviceMemory<u64> memory(numbers(0, 32));
  const auto prefetch = [&](const std::string& line) {
    return error_of([&] { run_with("mov.b64 %b, 0;\n" + line, memory); });
  };
  CHECK(prefetch("cp.async.bulk.prefetch.L2.global [%p0], 256;\n").empty());
  CHECK(prefetch("cp.async.bulk.prefetch.L2.global.L2::cache_hint [%p0], 256, %b;\n").empty());
  CHECK_ERROR(throw Error(prefetch("cp.async.bulk.prefetch.L2.global [%p0], 264;\n")),
              "multiple of 16");
  CHECK_ERROR(throw Error(prefetch("cp.async.bulk.prefetch.L2.global [%p0], 272;\n")), "invalid");
}

void test_counts() {
  DeviceMemory<u64> memory(Values(32));
  Counts counts;
  run_with(init_barrier(1) + load_tile("%p0", 256) + wait_for_barrier("waiting") + kStore + kWait,
           memory, &counts);
  CHECK(counts.tma_loads == 1 && counts.tma_load_bytes == 256, counts.tma_load_bytes);
  CHECK(counts.tma_store_bytes == 256, counts.tma_store_bytes);
}

}  // namespace

int main() {
  test_load();
  test_late();
  test_store();
  test_overwritten_source();
  test_wait_read();
  test_groups();
  test_exit();
  test_multicast();
  test_errors();
  test_prefetch();
  test_counts();
  CHECK_FORMS_OF("9.7.9.25.4", "cp");
  CHECK_FORMS_OF("9.7.9.25.6", "cp");
  return finish();
}
