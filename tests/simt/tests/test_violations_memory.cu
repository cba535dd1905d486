// Kernels with memory bugs, each of which must be reported with kernel, block, thread and address.
// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include "test.h"

namespace {

using simt::test::DeviceArray;
using simt::test::for_all_schedules;

template <typename T>
__device__ T* shared_array(std::size_t count) {
  return static_cast<T*>(simt::dynamic_shared(count * sizeof(T), alignof(T)));
}

template <typename... Parameters>
void launch(const char* name, int threads, std::size_t shared_bytes, void (*kernel)(Parameters...),
            std::type_identity_t<Parameters>... arguments) {
  simt::launch(name, dim3(3), dim3(static_cast<unsigned>(threads)), shared_bytes, nullptr, kernel,
               arguments...);
}

// ---- Device memory.

__global__ void read_past_end(const int* from, int* to, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i <= count) to[i] = from[i];  // Bug: <.
}

__global__ void write_past_end(int* to, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i <= count) to[i] = i;
}

__global__ void write_before(int* to) {
  if (threadIdx.x == 0 && blockIdx.x == 2) to[-1] = 0;
}

__global__ void read_one(const int* from, int* to) {
  if (threadIdx.x == 3) to[0] = from[0];
}

__global__ void read_row(const int4* from, int4* to) {
  if (threadIdx.x == 1) to[0] = from[0];
}

__global__ void copy_bytes(const int* from, int* to, std::size_t bytes) {
  if (threadIdx.x == 1) std::memcpy(to, from, bytes);
}

__global__ void update(int* value) { atomicAdd(value + 1, 1); }

void test_device_bounds() {
  const DeviceArray<int> from(70, 1);
  const DeviceArray<int> large(80);
  const DeviceArray<int> to(70);
  CHECK_VIOLATION(
      launch("read_past_end", 32, 0, &read_past_end, from.data(), large.data(), 70),
      "kernel 'read_past_end', block (2,0,0), thread (6,0,0): reads 4 bytes of device memory, out "
      "of bounds: 0 bytes past the end of an allocation of 280 bytes",
      "test_violations_memory.cu:");
  CHECK_VIOLATION(
      launch("write_past_end", 32, 0, &write_past_end, to.data(), 70),
      "kernel 'write_past_end', block (2,0,0), thread (6,0,0): writes 4 bytes of device "
      "memory, out of bounds: 0 bytes past the end");
  CHECK_VIOLATION(launch("write_before", 32, 0, &write_before, to.data()),
                  "kernel 'write_before', block (2,0,0), thread (0,0,0): writes 4 bytes",
                  "4 bytes before an allocation of 280 bytes");
  CHECK_VIOLATION(launch("update", 32, 0, &update, to.data() + 69),
                  "thread (0,0,0): atomically updates 4 bytes of device memory, out of bounds");
  CHECK_VIOLATION(launch("copy_bytes", 2, 0, &copy_bytes, from.data(), large.data(), 281),
                  "thread (1,0,0): reads 281 bytes of device memory, out of bounds");
  int* freed = static_cast<int*>(simt::device_malloc(4));
  simt::device_free(freed);
  CHECK_VIOLATION(launch("read_one", 32, 0, &read_one, freed, to.data()), "out of bounds");
}

void test_uninitialized_device() {
  const DeviceArray<int> from(4);
  const DeviceArray<int> to(4);
  simt::mark_initialized(from.data() + 1, 12);
  CHECK_VIOLATION(
      launch("read_one", 32, 0, &read_one, from.data(), to.data()),
      "kernel 'read_one', block (0,0,0), thread (3,0,0): reads 4 bytes of device memory, "
      "uninitialised: byte 0 of an allocation of 16 bytes");
  CHECK_VIOLATION(launch("copy_bytes", 2, 0, &copy_bytes, from.data(), to.data(), 12),
                  "reads 12 bytes of device memory, uninitialised");
  CHECK_VIOLATION(launch("update", 1, 0, &update, to.data()), "atomically updates",
                  "uninitialised");
}

void test_alignment() {
  const DeviceArray<int> from(8, 0);
  const DeviceArray<int4> to(1);
  const auto* misaligned = reinterpret_cast<const int4*>(from.data() + 1);
#if !defined(SIMT_TEST_UBSAN)
  CHECK_VIOLATION(launch("read_row", 32, 0, &read_row, misaligned, to.data()),
                  "kernel 'read_row', block (0,0,0), thread (1,0,0): reads 16 bytes at an address "
                  "that is not a multiple of 16");
#else
  CHECK(reinterpret_cast<uintptr_t>(misaligned) % 16 != 0, "the sanitizer ends the program");
#endif
}

void test_host_memory() {
  const DeviceArray<int> to(1);
  const std::vector<int> host(4, 1);
  int local = 1;
  CHECK_VIOLATION(launch("read_one", 32, 0, &read_one, host.data(), to.data()),
                  "kernel 'read_one', block (0,0,0), thread (3,0,0): reads 4 bytes of host memory");
  CHECK_VIOLATION(launch("read_one", 32, 0, &read_one, &local, to.data()),
                  "4 bytes of host memory");
  CHECK_VIOLATION(launch("read_one", 32, 0, &read_one, reinterpret_cast<const int*>(64), to.data()),
                  "a null pointer");
}

__global__ void share_local(int** pointers) {
  int local = static_cast<int>(threadIdx.x);
  pointers[threadIdx.x] = &local;
  __syncthreads();
  *pointers[(threadIdx.x + 1) % blockDim.x] = 5;
  __syncthreads();
}

void test_local_memory() {
  const DeviceArray<int*> pointers(32);
  CHECK_VIOLATION(launch("share_local", 32, 0, &share_local, pointers.data()),
                  "thread (0,0,0): writes 4 bytes of local memory of thread 1");
}

// ---- Shared memory.

__global__ void shared_past_end(int* to) {
  int* shared = shared_array<int>(32);
  shared[threadIdx.x] = 1;
  __syncthreads();
  to[threadIdx.x] = shared[threadIdx.x + 1];  // Bug: the last thread reads past the end.
}

__global__ void address_before(int) { simt::shared_address(shared_array<int>(32) - 1); }

__global__ void read_uninitialized(int* to) {
  int* shared = shared_array<int>(64);
  if (threadIdx.x != 5) shared[threadIdx.x] = 1;
  __syncthreads();
  to[threadIdx.x] = shared[threadIdx.x];
}

__global__ void ask_for_more(int) { shared_array<int>(33); }

__global__ void address_of_local(int) {
  int local = 0;
  simt::shared_address(&local);
}

void test_shared() {
  const DeviceArray<int> to(64);
  for_all_schedules([&] {
    CHECK_VIOLATION(launch("shared_past_end", 32, 128, &shared_past_end, to.data()),
                    "kernel 'shared_past_end', block (",
                    "thread (31,0,0): reads 4 bytes of shared "
                    "memory at offset 128, out of bounds: the launch has 128 bytes");
    CHECK_VIOLATION(launch("read_uninitialized", 64, 256, &read_uninitialized, to.data()),
                    "thread (5,0,0): reads 4 bytes of shared memory at offset 20, which are "
                    "uninitialised");
  });
  CHECK_VIOLATION(launch("address_before", 1, 128, &address_before, 0),
                  "takes the shared address of what is not in shared memory");
  CHECK_VIOLATION(
      launch("ask_for_more", 1, 131, &ask_for_more, 0),
      "thread (0,0,0): asks for 132 bytes of shared memory, aligned to 4: the launch has "
      "131");
  CHECK_VIOLATION(launch("address_of_local", 1, 0, &address_of_local, 0),
                  "takes the shared address of what is not in shared memory");
}

// What a block leaves in shared memory is gone for the next block.
__global__ void read_last_block(int* to) {
  int* shared = shared_array<int>(1);
  if (blockIdx.x == 0) *shared = 1;
  if (threadIdx.x == 0) to[blockIdx.x] = *shared;
}

void test_blocks_are_separate() {
  const DeviceArray<int> to(3);
  CHECK_VIOLATION(launch("read_last_block", 1, 4, &read_last_block, to.data()),
                  "block (1,0,0), thread (0,0,0): reads 4 bytes", "uninitialised");
}

// ---- Asynchronous copies.

enum class Bug {
  kNone,
  kNoWait,
  kNoCommit,
  kExit,
  kUninitialized,
  kPastEnd,
  kMisaligned,
  kHost,
  kNotShared,
  kSize,
  kTwice
};

__global__ void copy(const int* from, int* to, Bug bug) {
  int* shared = shared_array<int>(8);
  if (threadIdx.x != 1) return;
  switch (bug) {
    case Bug::kMisaligned:
      simt::cp_async(shared, from + 1, 16, 16);
      break;
    case Bug::kPastEnd:
      simt::cp_async(shared, from + 4, 16, 16);
      break;
    case Bug::kHost:
      simt::cp_async(shared, &from, 8, 8);
      break;
    case Bug::kNotShared:
      simt::cp_async(to, from, 16, 16);
      break;
    case Bug::kSize:
      simt::cp_async(shared, from, 12, 12);
      break;
    case Bug::kTwice:
      simt::cp_async(shared, from, 16, 16);
      simt::cp_async(shared, from, 16, 16);
      break;
    default:
      simt::cp_async(shared, from, 16, 16);
  }
  if (bug != Bug::kNoCommit) simt::cp_async_commit();
  if (bug == Bug::kExit) return;
  if (bug != Bug::kNoWait) simt::cp_async_wait(0);
  to[0] = shared[0];
  simt::cp_async_wait_all();
}

void test_async_copies() {
  const DeviceArray<int> from(6);
  const DeviceArray<int> to(4);
  simt::mark_initialized(from.data(), 20);
  for_all_schedules([&] {
    const auto text_of = [&](Bug bug) {
      return simt::test::violation_of(
          [&] { launch("copy", 2, 32, &copy, from.data(), to.data(), bug); });
    };
    const auto is = [&](Bug bug, const char* what) {
      const std::string text = text_of(bug);
      CHECK(simt::test::contains(text, {"kernel 'copy', block (", "thread (1,0,0): ", what}), text);
    };
    CHECK(text_of(Bug::kNone).empty());
    const char* pending =
        "reads 4 bytes of shared memory at offset 0, the target of an asynchronous copy that has "
        "not been waited for";
    is(Bug::kNoWait, pending);
    is(Bug::kNoCommit, pending);
    is(Bug::kExit, "exits with cp.async copies that it has not waited for");
    is(Bug::kPastEnd, "reads 16 bytes of device memory, ");
    is(Bug::kMisaligned, "issues a cp.async whose source address is not a multiple of 16");
    is(Bug::kHost, "issues a cp.async whose source is not device memory");
    is(Bug::kNotShared, "starts a copy whose target is not shared memory");
    is(Bug::kSize, "issues a cp.async of 12 bytes with 12 source bytes");
    is(Bug::kTwice,
       "starts a copy that writes 16 bytes of shared memory at offset 0, the target of");
  });
}

// ---- Matrix instructions.

__global__ void load_rows(int* to, int bug) {
  auto* shared = shared_array<uint16_t>(256);
  for (unsigned i = threadIdx.x; i < 256; i += 32) shared[i] = 0;
  __syncthreads();
  const void* row = shared + threadIdx.x * 8;
  if (bug == 1 && threadIdx.x == 9) row = shared + 1;
  if (bug == 2 && threadIdx.x == 9) row = to;
  if (bug == 3 && threadIdx.x == 9) row = shared + 256;
  uint32_t fragment[4];
  simt::ldmatrix(fragment, 4, false, row);
  to[threadIdx.x] = static_cast<int>(fragment[0]);
}

void test_matrices() {
  const DeviceArray<int> to(32);
  CHECK(simt::test::violation_of([&] { launch("load_rows", 32, 512, &load_rows, to.data(), 0); }) ==
        "");
  CHECK_VIOLATION(launch("load_rows", 32, 512, &load_rows, to.data(), 1),
                  "thread (9,0,0): passes ldmatrix an address that is not a multiple of 16");
  CHECK_VIOLATION(launch("load_rows", 32, 512, &load_rows, to.data(), 2),
                  "thread (9,0,0): passes ldmatrix an address that is not in shared memory");
  CHECK_VIOLATION(launch("load_rows", 32, 512, &load_rows, to.data(), 3),
                  "thread (9,0,0): reads 16 bytes of shared memory at offset 512, out of bounds");
}

void test_checks_can_be_off() {
  const DeviceArray<int> from(4);
  const DeviceArray<int> to(4);
  simt::options().check_memory = false;
  launch("read_one", 32, 0, &read_one, from.data(), to.data());
  simt::options() = {};
  CHECK(to[0] == from[0]);
}

}  // namespace

int main() {
  test_device_bounds();
  test_uninitialized_device();
  test_alignment();
  test_host_memory();
  test_local_memory();
  test_shared();
  test_blocks_are_separate();
  test_async_copies();
  test_matrices();
  test_checks_can_be_off();
  return simt::test::finish();
}
