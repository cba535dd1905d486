// mbarriers: phases, arrivals, transaction counts, order; and their misuse.
// SPDX-License-Identifier: Apache-2.0
#include "hopper.h"

namespace {

using simt::test::DeviceArray;
using simt::test::launch_block;
using simt::test::storage;

struct Storage {
  alignas(16) uint32_t words[64];
  uint64_t barrier;
  uint64_t other;
};

void init(Storage& shared, int arrivals) {
  if (threadIdx.x == 0) {
    simt::mbarrier_init(&shared.barrier, arrivals);
    simt::fence_mbarrier_init();
  }
  __syncthreads();
}

// ---- Order ------------------------------------------------------------------------------------

/// Warp 1 hands words to warp 0 through the barrier, twice.
void hand_over(uint32_t* out) {
  auto& shared = storage<Storage>();
  init(shared, 64);
  const unsigned lane = threadIdx.x % 32;
  for (uint32_t round = 0; round < 2; ++round) {
    if (threadIdx.x >= 32) shared.words[lane] = 100 * round + lane;
    simt::mbarrier_arrive(&shared.barrier);
    simt::mbarrier_try_wait(&shared.barrier, 0);
    if (threadIdx.x < 32) out[32 * round + lane] = shared.words[31 - lane];
    simt::mbarrier_arrive(&shared.barrier);
    simt::mbarrier_try_wait(&shared.barrier, 1);
  }
}

void test_order() {
  const DeviceArray<uint32_t> out(64);
  simt::test::for_all_schedules([&] {
    launch_block<Storage>(64, &hand_over, out.data());
    for (uint32_t i = 0; i < 64; ++i) CHECK(out[i] == 100 * (i / 32) + 31 - i % 32);
  });
}

enum class Misuse {
  kNoArrivals,
  kTwoInits,
  kNoInit,
  kNotShared,
  kMisaligned,
  kAfterInval,
  kOverwritten,
  kRead,
  kTooManyArrivals,
  kParity,
  kTooManyBytes,
  kDeadlock,
  kInvalWhileWaiting,
  kNoOrder,
  kArriveAfterWrite,
};

/// Threads 0 and 1; under the default schedule thread 0 runs first.
void misuse(Misuse how, uint32_t* global) {
  auto& shared = storage<Storage>();
  uint64_t* barrier = &shared.barrier;
  const bool first = threadIdx.x == 0;
  switch (how) {
    case Misuse::kNoArrivals:
      return simt::mbarrier_init(barrier, 0);
    case Misuse::kTwoInits:
      simt::mbarrier_init(barrier, 1);
      return simt::mbarrier_init(barrier, 1);
    case Misuse::kNoInit:
      return simt::mbarrier_arrive(&shared.other);
    case Misuse::kNotShared:
      return simt::mbarrier_init(global, 1);
    case Misuse::kMisaligned:
      return simt::mbarrier_init(&shared.words[1], 1);
    case Misuse::kAfterInval:
      init(shared, 1);
      if (!first) return;
      simt::mbarrier_inval(barrier);
      return simt::mbarrier_arrive(barrier);
    case Misuse::kOverwritten:
      init(shared, 1);
      if (!first) *barrier = 7;
      return;
    case Misuse::kRead:
      init(shared, 1);
      if (!first) *global = static_cast<uint32_t>(*barrier);
      return;
    case Misuse::kTooManyArrivals:
      init(shared, 2);
      simt::mbarrier_expect_tx(barrier, 16);
      simt::mbarrier_arrive(barrier);
      if (!first) simt::mbarrier_arrive(barrier);
      return;
    case Misuse::kParity:
      init(shared, 1);
      simt::mbarrier_try_wait(barrier, 2);
      return;
    case Misuse::kTooManyBytes:
      init(shared, 1);
      return simt::mbarrier_expect_tx(barrier, 1 << 20);
    case Misuse::kDeadlock:
      init(shared, 3);
      simt::mbarrier_arrive(barrier);
      simt::mbarrier_try_wait(barrier, 0);
      return;
    case Misuse::kInvalWhileWaiting:
      init(shared, 1);
      if (first) simt::mbarrier_try_wait(barrier, 0);
      if (!first) simt::mbarrier_inval(barrier);
      return;
    case Misuse::kNoOrder:
      if (first) simt::mbarrier_init(barrier, 1);
      if (!first) simt::mbarrier_arrive(barrier);
      return;
    case Misuse::kArriveAfterWrite:  // Thread 1 reads what thread 0 writes after its arrival.
      init(shared, 1);
      if (first) simt::mbarrier_arrive(barrier);
      if (first) shared.words[0] = 1;
      if (!first) simt::mbarrier_try_wait(barrier, 0);
      if (!first) *global = shared.words[0];
      return;
  }
}

void test_misuse() {
  const DeviceArray<uint32_t> global(4, 0);
  const auto run = [&](Misuse how) { launch_block<Storage>(2, &misuse, how, global.data()); };
  CHECK_VIOLATION(run(Misuse::kNoArrivals), "initialises an mbarrier with 0 arrivals");
  CHECK_VIOLATION(run(Misuse::kTwoInits), "that is in use: inval comes first");
  CHECK_VIOLATION(run(Misuse::kNoInit), "uses an mbarrier at shared offset 264",
                  "that was not initialised");
  CHECK_VIOLATION(run(Misuse::kNotShared), "outside shared memory");
  CHECK_VIOLATION(run(Misuse::kMisaligned), "not 8-byte aligned");
  CHECK_VIOLATION(run(Misuse::kAfterInval), "thread (0,0,0)", "that was not initialised");
  CHECK_VIOLATION(run(Misuse::kOverwritten), "thread (1,0,0)", "writes 8 bytes",
                  "where an mbarrier is");
  CHECK_VIOLATION(run(Misuse::kRead), "reads 8 bytes", "where an mbarrier is");
  CHECK_VIOLATION(run(Misuse::kTooManyArrivals), "thread (1,0,0)", "arrives once too often",
                  "0 of 2 arrivals missing, 32 bytes outstanding");
  CHECK_VIOLATION(run(Misuse::kParity), "waits for parity 2");
  CHECK_VIOLATION(run(Misuse::kTooManyBytes), "announces 1048576 bytes");
  CHECK_VIOLATION(run(Misuse::kDeadlock), "kernel 'hopper', block (0,0,0)",
                  "deadlock: threads 0-1 wait for parity 0 of an mbarrier at shared offset 256",
                  "phase 0: 1 of 3 arrivals missing");
  CHECK_VIOLATION(run(Misuse::kInvalWhileWaiting), "for which threads wait");
  CHECK_VIOLATION(run(Misuse::kNoOrder), "thread (1,0,0)",
                  "nothing orders that after its init by thread 0");
  CHECK_VIOLATION(run(Misuse::kArriveAfterWrite), "thread (1,0,0)", "a race: thread (0,0,0) wrote");
}

// ---- Bytes ------------------------------------------------------------------------------------

/// Two copies and a poll: the copies land although nobody sleeps until they do.
void poll(const uint32_t* in, uint32_t* out) {
  auto& shared = storage<Storage>();
  init(shared, 1);
  if (threadIdx.x == 0) {
    simt::bulk_load(shared.words, in, 64, &shared.barrier);  // Before its bytes are announced.
    simt::mbarrier_arrive_expect_tx(&shared.barrier, 128);
    simt::bulk_load(shared.words + 16, in + 16, 64, &shared.barrier);
  }
  while (!simt::mbarrier_test_wait(&shared.barrier, 0)) {
  }
  out[threadIdx.x] = shared.words[threadIdx.x];
}

void test_poll() {
  std::vector<uint32_t> words(32);
  for (uint32_t i = 0; i < 32; ++i) words[i] = 7 * i;
  const DeviceArray<uint32_t> in(words);
  const DeviceArray<uint32_t> out(32);
  simt::test::for_all_schedules([&] {
    launch_block<Storage>(32, &poll, in.data(), out.data());
    CHECK(out.values() == words);
  });
}

// ---- cp.async that arrives by itself ------------------------------------------------------------

enum class Arrival { kRight, kNoWait, kMoreThanCounted, kTwoThreadsOneArrival };

void copy_and_arrive(Arrival how, const uint32_t* in, uint32_t* out) {
  auto& shared = storage<Storage>();
  init(shared, how == Arrival::kMoreThanCounted ? 1 : 16);
  simt::mbarrier_expect_tx(&shared.barrier, how == Arrival::kMoreThanCounted ? 16 : 0);
  const unsigned thread = threadIdx.x;
  simt::cp_async(shared.words + 4 * thread, in + 4 * thread, 16, 16);
  if (how != Arrival::kTwoThreadsOneArrival || thread % 2 == 0) {
    simt::cp_async_mbarrier_arrive_noinc(&shared.barrier);
  }
  if (how != Arrival::kNoWait) simt::mbarrier_try_wait(&shared.barrier, 0);
  for (unsigned i = 0; i < 4; ++i) out[4 * thread + i] = shared.words[4 * (15 - thread) + i];
}

void test_thread_copies() {
  std::vector<uint32_t> words(64);
  for (uint32_t i = 0; i < 64; ++i) words[i] = i;
  const DeviceArray<uint32_t> in(words);
  const DeviceArray<uint32_t> out(64);
  const auto run = [&](Arrival how) {
    launch_block<Storage>(16, &copy_and_arrive, how, in.data(), out.data());
  };
  simt::test::for_all_schedules([&] {
    run(Arrival::kRight);
    for (uint32_t i = 0; i < 64; ++i) CHECK(out[i] == 4 * (15 - i / 4) + i % 4);
    CHECK(!simt::test::violation_of([&] { run(Arrival::kNoWait); }).empty());
  });
  CHECK_VIOLATION(run(Arrival::kNoWait), "reads 4 bytes of shared memory");
  CHECK_VIOLATION(run(Arrival::kMoreThanCounted), "a cp.async arrives once too often");
  CHECK_VIOLATION(run(Arrival::kTwoThreadsOneArrival), "deadlock", "8 of 16 arrivals missing");
}

}  // namespace

int main() {
  simt::options().locate = false;
  test_order();
  test_misuse();
  test_poll();
  test_thread_copies();
  return simt::test::finish();
}
