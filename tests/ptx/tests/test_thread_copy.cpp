// cp.async: sizes, zeros, groups, arrivals that follow copies; when copies land.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "async_programs.h"
#include "device_memory.h"
#include "run_ptx.h"
#include "test.h"

namespace {

using namespace ptxsim;
using namespace ptxsim::test;

/// Each lane's 16 bytes: %r0 in `tile`, %a in memory at %p0. `tile` holds %in0 twice before.
std::string addresses() {
  return R"(
      mov.u32 %r0, tile;
      mad.lo.u32 %r0, %tid, 16, %r0;
      mad.wide.u32 %a, %tid, 16, %p0;
      st.shared.u64 [%r0], %in0;
      st.shared.u64 [%r0+8], %in0;
  )";
}
const std::string kRead = "ld.shared.v2.u64 {%out0, %out1}, [%r0];\n";
constexpr u64 kBefore = 0x1234567812345678;

struct Pair {
  Values low, high;
};
Pair run_copy(const std::string& lines, const DeviceMemory<u64>& memory, Counts* counts = nullptr) {
  const std::vector<Values> out = run_ptx({.body = declarations() + addresses() + lines,
                                           .inputs = {{kBefore}},
                                           .num_outputs = 2,
                                           .parameters = {memory.address()}},
                                          counts);
  return {out[0], out[1]};
}

DeviceMemory<u64> memory_of(u64 first) {
  std::vector<u64> words(64);
  for (u64 i = 0; i < words.size(); ++i) words[i] = first + i;
  return DeviceMemory<u64>(words);
}

/// Whether a lane's 16 bytes hold `copied` bytes from memory, then zeros up to `bytes`, and then
/// what was there before.
bool is_copied(const Pair& out, const DeviceMemory<u64>& memory, u32 lane, u32 copied, u32 bytes) {
  u8 expected[16];
  std::memcpy(expected, &kBefore, 8);
  std::memcpy(expected + 8, &kBefore, 8);
  std::memset(expected, 0, bytes);
  std::memcpy(expected, reinterpret_cast<const u8*>(memory.address()) + 16 * lane, copied);
  return std::memcmp(expected, &out.low[lane], 8) == 0 &&
         std::memcmp(expected + 8, &out.high[lane], 8) == 0;
}

void check_all(const std::string& lines, u32 copied, u32 bytes) {
  const DeviceMemory<u64> memory(std::vector<u64>(64, 0x1122334455667788));
  with_each_landing([&] {
    const Pair out = run_copy(lines + "cp.async.wait_all;\n" + kRead, memory);
    for (u32 lane = 0; lane < 32; ++lane) {
      CHECK(is_copied(out, memory, lane, copied, bytes), lines, lane);
    }
  });
}

void test_sizes() {
  check_all("cp.async.cg.shared.global [%r0], [%a], 16;\n", 16, 16);
  check_all("cp.async.ca.shared.global [%r0], [%a], 16;\n", 16, 16);
  check_all("cp.async.ca.shared::cta.global [%r0], [%a], 8;\n", 8, 8);
  check_all("cp.async.ca.shared.global [%r0], [%a], 4;\n", 4, 4);
  check_all("cp.async.cg.shared.global.L2::128B [%r0], [%a], 16;\n", 16, 16);
  check_all("mov.b64 %b, 0;\ncp.async.cg.shared.global.L2::cache_hint [%r0], [%a], 16, %b;\n", 16,
            16);
}

void test_zeros() {
  for (const u32 source : {0u, 1u, 7u, 15u, 16u}) {
    check_all("cp.async.cg.shared.global [%r0], [%a], 16, " + std::to_string(source) + ";\n",
              source, 16);
  }
  check_all("mov.b32 %r1, 5;\ncp.async.cg.shared.global.L2::128B [%r0], [%a], 16, %r1;\n", 5, 16);
  check_all("mov.b32 %r1, 2;\ncp.async.ca.shared.global [%r0], [%a], 4, %r1;\n", 2, 4);
  check_all("setp.eq.u32 %p, 0, 0;\ncp.async.cg.shared.global [%r0], [%a], 16, %p;\n", 0, 16);
  check_all("setp.eq.u32 %p, 0, 1;\ncp.async.cg.shared.global [%r0], [%a], 16, %p;\n", 16, 16);
  // Nothing is read, so the address may be invalid.
  check_all("mov.b64 %a, 0;\ncp.async.cg.shared.global [%r0], [%a], 16, 0;\n", 0, 16);
}

/// Late copies land when their group is waited for, and not before.
void test_groups() {
  const DeviceMemory<u64> memory = memory_of(1);
  const WithLanding late(Landing::kLate);
  const std::string copies = R"(
      cp.async.ca.shared.global [%r0], [%a], 8;
      cp.async.commit_group;
      cp.async.ca.shared.global [%r0+8], [%a+8], 8;
      cp.async.commit_group;
  )";
  const Pair none = run_copy(copies + kRead + "cp.async.wait_all;\n", memory);
  const Pair two = run_copy(copies + "cp.async.wait_group 2;\n" + kRead, memory);
  const Pair one = run_copy(copies + "cp.async.wait_group 1;\n" + kRead, memory);
  const Pair zero = run_copy(copies + "cp.async.wait_group 0;\n" + kRead, memory);
  for (u32 lane = 0; lane < 32; ++lane) {
    CHECK(is_copied(none, memory, lane, 0, 0), lane);
    CHECK(is_copied(two, memory, lane, 0, 0), lane);
    CHECK(is_copied(one, memory, lane, 8, 8), lane);
    CHECK(is_copied(zero, memory, lane, 16, 16), lane);
  }
  // A copy that was not committed is in no group, but wait_all waits for it.
  const std::string open = "cp.async.cg.shared.global [%r0], [%a], 16;\n";
  CHECK(is_copied(run_copy(open + "cp.async.wait_group 0;\n" + kRead, memory), memory, 3, 0, 0));
  CHECK(is_copied(run_copy(open + "cp.async.wait_all;\n" + kRead, memory), memory, 3, 16, 16));
  // Each lane has its own groups: those of lane 0 do not delay the others.
  const Pair odd = run_copy(open + R"(
      cp.async.commit_group;
      @%leader cp.async.commit_group;
      cp.async.wait_group 1;
  )" + kRead,
                            memory);
  CHECK(is_copied(odd, memory, 0, 16, 16));
  CHECK(is_copied(odd, memory, 1, 0, 0));
}

void test_arrival() {
  const DeviceMemory<u64> memory = memory_of(100);
  const std::string copy = "cp.async.cg.shared.global [%r0], [%a], 16;\n";
  // Without .noinc the arrival adds itself to what the phase waits for, so the barrier's own
  // arrivals remain.
  const std::string incremented = init_barrier(32) + copy +
                                  "cp.async.mbarrier.arrive.shared::cta.b64 [bar];\n"
                                  "mbarrier.arrive.shared::cta.b64 _, [bar];\n";
  const std::string counted =
      init_barrier(32) + copy + "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [bar];\n";
  const std::string by_generic_address =
      init_barrier(32) + copy +
      "mov.u64 %b, bar;\ncvta.shared.u64 %b, %b;\ncp.async.mbarrier.arrive.noinc.b64 [%b];\n";
  with_each_landing([&] {
    for (const std::string& lines : {incremented, counted, by_generic_address}) {
      const Pair out = run_copy(lines + wait_for_barrier("waiting") + kRead, memory);
      for (u32 lane = 0; lane < 32; ++lane) CHECK(is_copied(out, memory, lane, 16, 16), lane);
    }
  });
  CHECK_ERROR(run_copy("@%leader cp.async.mbarrier.arrive.noinc.shared.b64 [bar];\n", memory),
              "not initialised");
}

void test_errors() {
  const DeviceMemory<u64> memory = memory_of(0);
  const auto run = [&](const std::string& line) { run_copy(line + "\n" + kRead, memory); };
  CHECK_ERROR(run("cp.async.cg.shared.global [%r0+8], [%a], 16;"), "misaligned", "destination");
  CHECK_ERROR(run("cp.async.cg.shared.global [%r0], [%a+8], 16;"), "misaligned", "source");
  CHECK_ERROR(run("cp.async.cg.shared.global [%r0], [%a+16], 16;"), "invalid global");
  CHECK_ERROR(run("cp.async.cg.shared.global [%r0+16384], [%a], 16;"), "outside of the block's");
  CHECK_ERROR(run("cp.async.cg.shared.global [%r0], [%a], 16, 17;"), "reads 17 bytes for 16");
  CHECK_ERROR(run("cp.async.cg.shared.global [%r0], [%a], 8;"), "not allowed");
  CHECK_ERROR(run("cp.async.ca.shared.global [%r0], [%a], 12;"), "not allowed");
  CHECK_ERROR(run("cp.async.shared.global [%r0], [%a], 16;"), "'.shared' is not known");
}

void test_counts() {
  const DeviceMemory<u64> memory = memory_of(0);
  Counts counts;
  run_copy("cp.async.cg.shared.global [%r0], [%a], 16, 12;\ncp.async.wait_all;\n" + kRead, memory,
           &counts);
  CHECK(counts.cp_async_bytes == 12 * 32, counts.cp_async_bytes);
}

}  // namespace

int main() {
  test_sizes();
  test_zeros();
  test_groups();
  test_arrival();
  test_errors();
  test_counts();
  CHECK_FORMS_OF("9.7.9.25.3", "cp");
  CHECK_FORMS_OF("9.7.13.15", "cp");
  return finish();
}
