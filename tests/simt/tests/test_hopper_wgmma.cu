// wgmma: sums against plain loops for every N, order of products, patterns that start anywhere, and
// misuse; setmaxnreg and elect.sync. (tests/gpu tests layouts by swizzle and major, and checks them
// on hardware too.)
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "hopper.h"

namespace {

using simt::test::DeviceArray;
using simt::test::launch_block;
using simt::test::storage;

float bf16(uint16_t bits) { return simt::float_from_bits(static_cast<uint32_t>(bits) << 16); }

/// K-major operands of 16 columns without swizzle: [k / 8][row][8].
constexpr uint32_t kRowsB = 256;
struct Storage {
  alignas(1024) uint16_t a[2][64][8];
  alignas(1024) uint16_t b[2][kRowsB][8];
  alignas(1024) uint16_t spare[8192];
};

uint64_t descriptor(const void* start, uint32_t leading, uint32_t stride, uint64_t mode,
                    uint64_t base_offset = 0) {
  const uint64_t address = simt::shared_address(start);
  return address >> 4 | uint64_t{leading >> 4} << 16 | uint64_t{stride >> 4} << 32 |
         base_offset << 49 | mode << 62;
}
uint64_t descriptor_a(const Storage& shared) { return descriptor(shared.a, 64 * 16, 128, 0); }
uint64_t descriptor_b(const Storage& shared) { return descriptor(shared.b, kRowsB * 16, 128, 0); }

/// A is [64][16], B [256][16].
void fill(Storage& shared, const uint16_t* in) {
  for (unsigned i = threadIdx.x; i < 64 * 16; i += blockDim.x) {
    shared.a[i % 16 / 8][i / 16][i % 8] = in[i];
  }
  for (unsigned i = threadIdx.x; i < kRowsB * 16; i += blockDim.x) {
    shared.b[i % 16 / 8][i / 16][i % 8] = in[64 * 16 + i];
  }
  simt::fence_proxy_async();
  __syncthreads();
}

void finish(float* d, int count) {
  simt::wgmma_commit_group();
  simt::wgmma_wait(0);
  simt::keep_registers(d, count);
}

std::vector<uint16_t> random_operands() {
  std::vector<uint16_t> values((64 + kRowsB) * 16);
  uint32_t state = 1;
  for (uint16_t& value : values) {
    state = state * 1664525 + 1013904223;
    // Signs, exponents 124 to 127, all fractions.
    value = static_cast<uint16_t>((state >> 16 & 0x8000) | (124 + (state >> 20) % 4) << 7 |
                                  (state >> 24 & 0x7f));
  }
  return values;
}

double product_of(const uint16_t* in, std::size_t m, std::size_t n) {
  double sum = 0;
  for (std::size_t k = 0; k < 16; ++k) {
    sum += double{bf16(in[m * 16 + k])} * double{bf16(in[(64 + n) * 16 + k])};
  }
  return sum;
}

// ---- Sums ---------------------------------------------------------------------------------------

/// out[m][n] = 1 + 2 (A B)[m][n]: two products on one accumulator, each in its own group. The
/// schedule decides when each of them happens.
void multiply(int n, const uint16_t* in, float* out) {
  auto& shared = storage<Storage>();
  fill(shared, in);
  float d[128];
  for (int i = 0; i < n / 2; ++i) d[i] = 1;
  simt::wgmma_fence();
  for (int i = 0; i < 2; ++i) {
    simt::wgmma_shared(d, n, descriptor_a(shared), descriptor_b(shared), true, false, true);
    simt::wgmma_commit_group();
  }
  simt::wgmma_wait(1);
  simt::wgmma_wait(0);
  simt::keep_registers(d, n / 2);
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = 0; i < n / 2; ++i) {
    const int row = thread / 32 * 16 + thread % 32 / 4 + i % 4 / 2 * 8;
    const int column = i / 4 * 8 + thread % 4 * 2 + i % 2;
    out[row * n + column] = d[i];
  }
}

void test_sums() {
  const std::vector<uint16_t> values = random_operands();
  const DeviceArray<uint16_t> in(values);
  for (int n = 8; n <= 256; n += 8) {
    const DeviceArray<float> out(static_cast<std::size_t>(64 * n));
    launch_block<Storage>(128, &multiply, n, in.data(), out.data());
    for (std::size_t i = 0; i < out.size(); ++i) {
      const auto columns = static_cast<std::size_t>(n);
      const double want = 1 + 2 * product_of(values.data(), i / columns, i % columns);
      // Each product's sum is rounded to float once.
      CHECK(std::fabs(out[i] - want) <= 0x1p-22 * 64, n, i, out[i], want);
    }
  }
}

void test_schedules() {
  const std::vector<uint16_t> values = random_operands();
  const DeviceArray<uint16_t> in(values);
  const DeviceArray<float> out(64 * 32);
  launch_block<Storage>(128, &multiply, 32, in.data(), out.data());
  const std::vector<float> want = out.values();
  simt::test::for_all_schedules([&] {
    launch_block<Storage>(128, &multiply, 32, in.data(), out.data());
    CHECK(out.values() == want);
  });
}

// ---- A pattern that does not start at a multiple of its length: base offset ---------------------

/// B is [8 rows of 128 bytes] with a 128-byte swizzle whose pattern starts at line `line`; uses the
/// columns from 16 on.
void multiply_offset(unsigned line, const uint16_t* in, float* out) {
  auto& shared = storage<Storage>();
  fill(shared, in);
  uint16_t* b = shared.spare + 64 * line;
  for (unsigned i = threadIdx.x; i < 8 * 64; i += 128) b[i] = 0;
  __syncthreads();
  for (unsigned i = threadIdx.x; i < 8 * 16; i += 128) {
    const unsigned row = i / 16;
    const unsigned chunk = (2 + i % 16 / 8) ^ row;  // Row r, counted from the pattern's start.
    b[64 * row + 8 * chunk + i % 8] = in[64 * 16 + i];
  }
  simt::fence_proxy_async();
  __syncthreads();
  float d[4] = {};
  simt::wgmma_fence();
  const uint64_t descriptor_of_b = descriptor(b, 16, 1024, 1, line) + (32 >> 4);
  simt::wgmma_shared(d, 8, descriptor_a(shared), descriptor_of_b, false, false, true);
  finish(d, 4);
  for (int i = 0; i < 4; ++i) out[4 * threadIdx.x + static_cast<unsigned>(i)] = d[i];
}

void test_base_offset() {
  const DeviceArray<uint16_t> in(random_operands());
  const DeviceArray<float> out(512);
  std::vector<float> want;
  for (unsigned line = 0; line < 8; ++line) {
    launch_block<Storage>(128, &multiply_offset, line, in.data(), out.data());
    if (line == 0) want = out.values();
    CHECK(out.values() == want, line);
  }
  CHECK(std::fabs(want[0] - product_of(in.data(), 0, 0)) < 1e-5);
}

// ---- Misuse ------------------------------------------------------------------------------------

enum class Misuse {
  kNone,
  kReservedBits,
  kPastRow,
  kOddN,
  kOutOfBounds,
  kUnwritten,
  kUnfencedWrite,
  kUnfencedThreadCopy,
  kFencedThreadCopy,
  kNoFence,
  kNoFenceAfterWait,
  kNoFenceForRegisters,
  kWriteOperand,
  kWriteAfterOwnWait,
  kWriteAfterAllWaits,
  kWriteAccumulator,
  kReadEarly,
  kKeepEarly,
  kKeepPart,
  kWriteRegisterOperand,
  kOtherShape,
  kUnequalLanes,
  kUnequalWarps,
  kMissingWarp,
  kUnequalGroups,
  kNotAwaited,
  kNotCommitted,
};

void misuse_operands(Misuse how, Storage& shared, const uint16_t* in) {
  const auto is = [how](Misuse other) { return how == other; };
  if (is(Misuse::kUnfencedWrite) && threadIdx.x == 70) shared.b[1][9][2] = 1;
  if (is(Misuse::kUnfencedThreadCopy) || is(Misuse::kFencedThreadCopy)) {
    auto* barrier = shared.spare + 4096;
    if (threadIdx.x == 0) simt::mbarrier_init(barrier, 128);
    __syncthreads();
    simt::cp_async(shared.b[0][threadIdx.x], in + 8 * threadIdx.x, 16, 16);
    simt::cp_async_mbarrier_arrive_noinc(barrier);
    simt::mbarrier_try_wait(barrier, 0);
    if (is(Misuse::kFencedThreadCopy)) simt::fence_proxy_async();
  }
  __syncthreads();
}

/// One warpgroup, one product of N = 16, and one kind of misuse.
void misuse(Misuse how, const uint16_t* in, float* out) {
  auto& shared = storage<Storage>();
  const auto is = [how](Misuse other) { return how == other; };
  fill(shared, in);
  misuse_operands(how, shared, in);
  const unsigned warp = threadIdx.x / 32;
  uint64_t a = descriptor_a(shared);
  uint64_t b = descriptor_b(shared);
  int n = 16;
  if (is(Misuse::kReservedBits)) b |= uint64_t{1} << 46;
  if (is(Misuse::kPastRow)) b = descriptor(shared.spare, 16, 1024, 1) + (112 >> 4);
  if (is(Misuse::kOddN)) n = 12;
  if (is(Misuse::kOutOfBounds)) b = descriptor(shared.spare + 8192, 16, 128, 0);
  if (is(Misuse::kUnwritten)) b = descriptor(shared.spare, 256, 128, 0);
  if (is(Misuse::kUnequalLanes) && threadIdx.x == 33) b += 1;
  if (is(Misuse::kUnequalWarps) && warp == 2) b += 8;
  float d[8] = {};
  float e[16] = {};
  uint32_t registers[4] = {1, 2, 3, 4};
  if (!is(Misuse::kNoFence)) simt::wgmma_fence();
  if (is(Misuse::kMissingWarp) && warp == 1) return;
  simt::wgmma_shared(d, n, a, b, true, false, true);
  if (is(Misuse::kOtherShape)) simt::wgmma_shared(d, 8, a, b, true, false, true);
  if (is(Misuse::kUnequalGroups) && warp == 3) simt::wgmma_commit_group();
  if (is(Misuse::kWriteRegisterOperand) || is(Misuse::kUnequalGroups)) {
    simt::wgmma_registers(e, 32, registers, b, true, false, true);
  }
  if (is(Misuse::kNotCommitted)) return simt::wgmma_wait(0);
  simt::wgmma_commit_group();
  if (is(Misuse::kNotAwaited)) return;
  if (is(Misuse::kWriteOperand) && threadIdx.x == 64) shared.a[0][63][7] = 1;
  if (is(Misuse::kWriteRegisterOperand) && threadIdx.x == 5) registers[2] = 7;
  if (is(Misuse::kWriteAccumulator) && threadIdx.x == 6) d[3] = 0;
  if (is(Misuse::kWriteAccumulator)) simt::wgmma_shared(d, 16, a, b, true, false, true);
  if (is(Misuse::kReadEarly)) out[threadIdx.x] = d[0];
  if (is(Misuse::kKeepEarly)) simt::keep_registers(d, 8);
  if (is(Misuse::kWriteAfterOwnWait)) {
    if (warp == 0) {
      simt::wgmma_wait(0);
      if (threadIdx.x == 3) shared.a[0][63][7] = 1;
    }
    __syncthreads();  // The other warps wait for the product after that.
  }
  simt::wgmma_wait(0);
  if (is(Misuse::kWriteAfterAllWaits)) {
    __syncthreads();
    if (threadIdx.x == 3) shared.a[0][63][7] = 1;
  }
  if (is(Misuse::kKeepPart)) simt::keep_registers(d, 4);
  simt::keep_registers(d, 8);
  if (is(Misuse::kNoFenceAfterWait)) simt::wgmma_shared(d, 16, a, b, true, false, true);
  if (is(Misuse::kNoFenceForRegisters)) {
    simt::wgmma_registers(e, 32, registers, b, true, false, true);
  }
}

void test_misuse() {
  const DeviceArray<uint16_t> in(random_operands());
  const DeviceArray<float> out(128);
  const auto run = [&](Misuse how) {
    launch_block<Storage>(128, &misuse, how, in.data(), out.data());
  };
  run(Misuse::kNone);
  run(Misuse::kFencedThreadCopy);
  run(Misuse::kWriteAfterAllWaits);
  run(Misuse::kReadEarly);
  for (std::size_t i = 0; i < out.size(); ++i) CHECK(std::isnan(out[i]), "whatever it is, not d");
  CHECK_VIOLATION(run(Misuse::kReservedBits), "descriptor of B has reserved bits set");
  CHECK_VIOLATION(run(Misuse::kPastRow), "descriptor of B runs past the end of its rows");
  CHECK_VIOLATION(run(Misuse::kOddN), "issues a wgmma with N = 12");
  CHECK_VIOLATION(run(Misuse::kOutOfBounds), "starts to read 16 bytes", "out of bounds");
  CHECK_VIOLATION(run(Misuse::kUnwritten), "starts to read 16 bytes", "uninitialised");
  CHECK_VIOLATION(run(Misuse::kUnfencedWrite), "issues a wgmma that reads shared memory at offset",
                  "which thread 70 wrote with no proxy fence");
  CHECK_VIOLATION(run(Misuse::kUnfencedThreadCopy), "which a cp.async wrote with no proxy fence");
  CHECK_VIOLATION(run(Misuse::kNoFence), "on new accumulators and no wgmma.fence");
  CHECK_VIOLATION(run(Misuse::kNoFenceAfterWait), "on new accumulators and no wgmma.fence");
  CHECK_VIOLATION(run(Misuse::kNoFenceForRegisters), "A in registers and no wgmma.fence");
  CHECK_VIOLATION(run(Misuse::kWriteOperand), "thread (64,0,0)", "writes 2 bytes",
                  "an asynchronous operation");
  CHECK_VIOLATION(run(Misuse::kWriteAfterOwnWait), "writes 2 bytes", "an asynchronous operation");
  CHECK_VIOLATION(run(Misuse::kWriteAccumulator), "thread (6,0,0)",
                  "has written accumulators of a wgmma that it has not waited for");
  CHECK_VIOLATION(run(Misuse::kKeepEarly), "keeps accumulators of a wgmma that it has not waited");
  CHECK_VIOLATION(run(Misuse::kKeepPart), "keeps accumulators that are not all of a wgmma's");
  CHECK_VIOLATION(run(Misuse::kWriteRegisterOperand), "thread (5,0,0)",
                  "has written the register operand of a wgmma before waiting for it");
  CHECK_VIOLATION(run(Misuse::kOtherShape), "of another shape");
  CHECK_VIOLATION(run(Misuse::kUnequalLanes), "not the same in all lanes of its warp");
  CHECK_VIOLATION(run(Misuse::kUnequalWarps), "not the same in all warps of its warpgroup");
  CHECK_VIOLATION(run(Misuse::kMissingWarp),
                  "deadlock: threads 0-31 wait for the other warps of "
                  "its warpgroup to issue wgmma number 0");
  CHECK_VIOLATION(run(Misuse::kUnequalGroups), "descriptors, shape, type or group differ");
  CHECK_VIOLATION(run(Misuse::kNotAwaited), "exits with a wgmma that it has not waited for");
  CHECK_VIOLATION(run(Misuse::kNotCommitted), "exits with a wgmma that it has not waited for");
  CHECK_VIOLATION(launch_block<Storage>(96, &misuse, Misuse::kNone, in.data(), out.data()),
                  "outside a warpgroup of 128 threads");
}

// ---- setmaxnreg, elect.sync ---------------------------------------------------------------------

struct RegisterCounts {
  int counts[3];
  bool increases[3];
  int other_warp = 0;  // Used in its place by the last warp of the last warpgroup.
};

void set_registers(RegisterCounts counts) {
  const unsigned group = threadIdx.x / 128;
  int count = counts.counts[group];
  if (threadIdx.x / 32 == 11 && counts.other_warp != 0) count = counts.other_warp;
  simt::setmaxnreg(count, counts.increases[group]);
}

struct Nothing {};

void test_registers() {
  const auto run = [](RegisterCounts counts) {
    launch_block<Nothing>(384, &set_registers, counts);
  };
  simt::test::for_all_schedules([&] {
    run({{24, 240, 240}, {false, true, true}});
    run({{240, 24, 240}, {true, false, true}});
  });
  CHECK_VIOLATION(run({{24, 240, 248}, {false, true, true}}),
                  "deadlock: threads 256-383 wait for setmaxnreg.inc to 248 registers");
  CHECK_VIOLATION(run({{168, 176, 160}, {false, true, true}}), "thread (383,0,0)",
                  "setmaxnreg.inc to 160 registers, and holds 168");
  CHECK_VIOLATION(run({{176, 168, 168}, {false, true, true}}),
                  "setmaxnreg.dec to 176 registers, and holds 168");
  CHECK_VIOLATION(run({{20, 168, 168}, {false, true, true}}), "with 20 registers");
  CHECK_VIOLATION(run({{100, 168, 168}, {false, true, true}}), "with 100 registers");
  CHECK_VIOLATION(run({{24, 168, 168}, {false, true, true}, 176}),
                  "not the one its warpgroup's other warps execute");
}

void elect(uint32_t* out) {
  for (unsigned i = 0; i < 3; ++i) {
    const bool elected = simt::elect_one();
    const unsigned lanes = __ballot_sync(0xffffffff, elected);
    if (elected) out[threadIdx.x / 32 * 3 + i] = lanes;
  }
}

void test_elect() {
  const DeviceArray<uint32_t> out(6);
  for (const uint64_t seed : {0, 5, 31, 33}) {
    simt::options().seed = seed;
    launch_block<Nothing>(64, &elect, out.data());
    for (std::size_t i = 0; i < 6; ++i) CHECK(out[i] == 1u << (seed % 32), seed, i);
  }
  simt::options().seed = 0;
}

}  // namespace

int main() {
  simt::options().locate = false;
  test_sums();
  test_schedules();
  test_base_offset();
  test_misuse();
  test_registers();
  test_elect();
  return simt::test::finish();
}
